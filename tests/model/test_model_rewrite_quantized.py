"""Quantised operators in floating point: the same integers as ONNX Runtime's own."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from rewrite_cases import check, model_of, operators, run

from tunebank.model.rewrite import rewrite

QUANTIZED = {"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"}


def integers(rng, dtype, *shape):
    bounds = np.iinfo(dtype)
    return rng.integers(bounds.min, bounds.max + 1, shape).astype(dtype)


def scales(rng, *shape):
    return rng.uniform(0.01, 0.1, shape).astype(np.float32)


@st.composite
def convolutions(draw):
    """A QLinearConv with inputs: one or two dimensions, groups, a scale for each channel."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    groups = draw(st.sampled_from([1, 2]))
    kernel = [draw(st.integers(1, 3)) for _ in range(draw(st.integers(1, 2)))]
    x_type, w_type = draw(st.sampled_from([(np.uint8, np.int8), (np.uint8, np.uint8)]))
    if draw(st.booleans()):
        x_type, w_type = np.int8, np.int8
    channels = 4
    per_channel = draw(st.booleans())
    count = (channels,) if per_channel else ()
    x = integers(rng, x_type, 2, 2 * groups, *(6 for _ in kernel))
    w_zero = np.zeros(count, w_type) if w_type == np.int8 else integers(rng, w_type)
    weights = {
        "xs": scales(rng),
        "xz": integers(rng, x_type),
        "w": integers(rng, w_type, channels, 2, *kernel),
        "ws": scales(rng, *count),
        "wz": w_zero if w_type == np.int8 else np.broadcast_to(w_zero, count).copy(),
        "ys": np.float32(4 * rng.uniform(0.5, 2)),
        "yz": integers(rng, x_type),
    }
    names = ["x", *weights]
    if draw(st.booleans()):
        weights["b"] = rng.integers(-3000, 3000, channels).astype(np.int32)
        names.append("b")
    attributes = {"group": groups, "kernel_shape": kernel}
    if draw(st.booleans()):
        attributes["pads"] = [1] * (2 * len(kernel))
    if draw(st.booleans()):
        attributes["strides"] = [2] * len(kernel)
    node = helper.make_node("QLinearConv", names, ["y"], **attributes)
    return model_of([node], {"x": x}, ["y"], weights), {"x": x}


@settings(max_examples=80, deadline=None)
@given(convolutions())
def test_convolution_gives_the_same_integers(case):
    model, inputs = case
    changed = check(model, inputs, rtol=0, atol=0)
    assert not operators(changed) & QUANTIZED


@pytest.mark.parametrize("types", [(np.uint8, np.int8), (np.uint8, np.uint8), (np.int8, np.int8)])
@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("opset", [10, 21])
def test_matmul_gives_the_same_integers(types, columns, opset):
    rng = np.random.default_rng(3)
    a = integers(rng, types[0], 2, 5, 33)
    count = (6,) if columns else ()
    weights = {
        "as": scales(rng),
        "az": integers(rng, types[0]),
        "b": integers(rng, types[1], 33, 6),
        "bs": scales(rng, *count),
        "bz": np.zeros(count, types[1]) if types[1] == np.int8 else integers(rng, types[1], *count),
        "ys": np.float32(7.3),
        "yz": integers(rng, types[0]),
    }
    node = helper.make_node("QLinearMatMul", ["a", *weights], ["y"])
    model = model_of([node], {"a": a}, ["y"], weights, opset=opset)
    changed = check(model, {"a": a}, rtol=0, atol=0)
    assert not operators(changed) & QUANTIZED


@pytest.mark.parametrize("terms", [40, 400])
@pytest.mark.parametrize("zeros", [False, True])
def test_integer_matmul(terms, zeros):
    rng = np.random.default_rng(5)
    a = integers(rng, np.uint8, 3, terms)
    weights = {"b": integers(rng, np.int8, terms, 4)}
    if zeros:
        weights |= {"az": np.uint8(130), "bz": np.zeros(4, np.int8)}
    node = helper.make_node("MatMulInteger", ["a", *weights], ["y"])
    changed = check(model_of([node], {"a": a}, ["y"], weights), {"a": a}, rtol=0, atol=0)
    # Beyond 2^24 sums in float32 would not be exact: then it stays in integers.
    assert ("MatMulInteger" in operators(changed)) == (terms == 400)


def test_integer_matmul_that_is_scaled_runs_in_floats():
    rng = np.random.default_rng(5)
    x = rng.standard_normal((3, 400)).astype(np.float32)
    weights = {"b": integers(rng, np.int8, 400, 4), "bs": np.float32(0.03)}
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["a", "as", "az"]),
        helper.make_node("MatMulInteger", ["a", "b", "az"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["as", "bs"], ["scale"]),
        helper.make_node("Mul", ["float", "scale"], ["y"]),
    ]
    changed = check(model_of(nodes, {"x": x}, ["y"], weights), {"x": x})
    assert not operators(changed) & {"MatMulInteger", "DynamicQuantizeLinear"}


def test_integer_convolution():
    rng = np.random.default_rng(6)
    x = integers(rng, np.uint8, 1, 2, 6, 6)
    weights = {"w": integers(rng, np.uint8, 3, 2, 3, 3), "xz": np.uint8(7), "wz": np.uint8(99)}
    node = helper.make_node("ConvInteger", ["x", *weights], ["y"], pads=[1, 1, 1, 1])
    changed = check(model_of([node], {"x": x}, ["y"], weights), {"x": x}, rtol=0, atol=0)
    assert not operators(changed) & QUANTIZED


def test_sums_beyond_floats_are_of_integers():
    rng = np.random.default_rng(6)
    x = integers(rng, np.uint8, 1, 64, 4, 4)
    weights = {"w": integers(rng, np.int8, 3, 64, 3, 3)}
    node = helper.make_node("ConvInteger", ["x", "w"], ["y"])
    changed = rewrite(model_of([node], {"x": x}, ["y"], weights))
    (conv,) = (node for node in changed.graph.node if node.op_type == "Conv")
    casts = {node.output[0]: node for node in changed.graph.node if node.op_type == "Cast"}
    kinds = {helper.get_node_attr_value(casts[name], "to") for name in conv.input if name in casts}
    assert kinds <= {TensorProto.INT32}  # weights are folded to constants of that type
    assert kinds


@pytest.mark.parametrize("value", ["mixed", "positive", "negative", "zero"])
def test_dynamic_quantisation(value):
    x = np.random.default_rng(8).standard_normal((4, 50)).astype(np.float32)
    x = {"mixed": x, "positive": abs(x) + 1, "negative": -abs(x) - 1, "zero": 0 * x}[value]
    node = helper.make_node("DynamicQuantizeLinear", ["x"], ["y", "s", "z"])
    check(model_of([node], {"x": x}, ["y", "s", "z"]), {"x": x}, rtol=1e-6, atol=0)


def microsoft(op, names, **attributes):
    return helper.make_node(op, names, ["y"], domain="com.microsoft", **attributes)


def close_to_a_step(model, inputs):
    """Results of the rewritten model, which may be one step off where rounding is a tie."""
    expected = run(model, inputs)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    changed = rewrite(copy)
    (got,) = run(changed, inputs)
    assert got.dtype == expected[0].dtype
    difference = np.abs(got.astype(np.int32) - expected[0].astype(np.int32))
    assert difference.max() <= 1
    assert (difference == 0).mean() > 0.95
    return changed


@pytest.mark.parametrize("op", ["QLinearAdd", "QLinearMul"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_elementwise(op, dtype):
    rng = np.random.default_rng(9)
    a, b = integers(rng, dtype, 3, 40), integers(rng, dtype, 1, 40)
    weights = {"as": scales(rng), "az": integers(rng, dtype)}
    more = {"bs": scales(rng), "bz": integers(rng, dtype)}
    last = {"ys": np.float32(0.1), "yz": integers(rng, dtype)}
    node = microsoft(op, ["a", *weights, "b", *more, *last])
    model = model_of([node], {"a": a, "b": b}, ["y"], {**weights, **more, **last})
    close_to_a_step(model, {"a": a, "b": b})


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("QLinearSigmoid", {}),
        ("QLinearLeakyRelu", {"alpha": 0.2}),
        ("QLinearGlobalAveragePool", {}),
        ("QLinearAveragePool", {"kernel_shape": [2, 2]}),
        ("QLinearSoftmax", {"opset": 13, "axis": -1}),
    ],
)
def test_unary(op, attributes):
    rng = np.random.default_rng(10)
    x = integers(rng, np.uint8, 1, 3, 8, 8)
    weights = {"xs": scales(rng), "xz": np.uint8(100), "ys": np.float32(0.02), "yz": np.uint8(3)}
    model = model_of([microsoft(op, ["x", *weights], **attributes)], {"x": x}, ["y"], weights)
    close_to_a_step(model, {"x": x})


def test_concatenation():
    rng = np.random.default_rng(11)
    parts = {name: integers(rng, np.uint8, 2, 9) for name in "abc"}
    weights = {"ys": np.float32(0.05), "yz": np.uint8(90)}
    names = ["ys", "yz"]
    for name in parts:
        weights |= {f"{name}s": scales(rng), f"{name}z": integers(rng, np.uint8)}
        names += [name, f"{name}s", f"{name}z"]
    close_to_a_step(
        model_of([microsoft("QLinearConcat", names, axis=1)], parts, ["y"], weights), parts
    )


@pytest.mark.parametrize("quantized_result", [False, True])
def test_gemm(quantized_result):
    rng = np.random.default_rng(12)
    a = integers(rng, np.uint8, 4, 20)
    weights = {
        "as": scales(rng),
        "az": np.uint8(120),
        "b": integers(rng, np.int8, 7, 20),
        "bs": scales(rng, 7),
        "bz": np.zeros(7, np.int8),
        "c": rng.integers(-9000, 9000, 7).astype(np.int32),
    }
    if quantized_result:
        weights |= {"ys": np.float32(0.9), "yz": np.uint8(128)}
    model = model_of([microsoft("QGemm", ["a", *weights], transB=1)], {"a": a}, ["y"], weights)
    if quantized_result:
        close_to_a_step(model, {"a": a})
    else:
        check(model, {"a": a}, rtol=1e-4, atol=1e-3)


def test_matmul_of_a_float_that_is_quantised_as_it_comes():
    rng = np.random.default_rng(13)
    x = rng.standard_normal((3, 50)).astype(np.float32)
    weights = {"b": integers(rng, np.int8, 50, 4), "bs": scales(rng, 4), "bz": np.zeros(4, np.int8)}
    weights["bias"] = rng.standard_normal(4).astype(np.float32)
    node = microsoft("DynamicQuantizeMatMul", ["x", *weights])
    check(model_of([node], {"x": x}, ["y"], weights), {"x": x}, rtol=1e-4, atol=1e-3)
