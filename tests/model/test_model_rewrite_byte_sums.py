"""Quantised layers as sums of products of bytes: the numbers, and which layers become such."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from rewrite_cases import compiled, model_of, operators, run

from tunebank.model.rewrite import rewrite, unsupported

CHANNELS, RESULTS = 8, 16


def integers(rng, dtype, *shape):
    bounds = np.iinfo(dtype)
    return rng.integers(bounds.min, bounds.max + 1, shape).astype(dtype)


def scales(rng, *shape):
    return rng.uniform(0.01, 0.1, shape).astype(np.float32)


def quantised(rng, dtype, weight, *, axis, zero=None, per_channel=True):
    """Nodes and weights: x quantised and dequantised as `a`, the weight dequantised as `b`."""
    count = (weight.shape[axis],) if per_channel else ()
    weights = {
        "xs": np.float32(0.05),
        "xz": np.asarray(np.iinfo(dtype).min + 9 if zero is None else zero, dtype),
        "w": weight,
        "ws": scales(rng, *count),
        "wz": np.zeros(count, weight.dtype),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "xs", "xz"], ["a"]),
        helper.make_node(
            "DequantizeLinear", ["w", "ws", "wz"], ["b"], axis=axis if per_channel else None
        ),
    ]
    return nodes, weights


def check(nodes, x, weights, *, is_narrowed=True):
    """The same numbers through TVM, and no float product of what was quantised is left."""
    model = model_of(nodes, {"x": x}, ["y"], weights)
    expected = run(model, {"x": x})
    changed = rewrite(model, multiplies_bytes=True)
    assert unsupported(changed) == []
    assert ("DequantizeLinear" in operators(changed)) != is_narrowed
    for got, reference in zip(compiled(changed, {"x": x}), expected, strict=True):
        assert got.dtype == reference.dtype
        scale = np.abs(reference.astype(np.float64)).max()
        np.testing.assert_allclose(got, reference, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"pads": [1, 1, 1, 1]},
        {"pads": [0, 1, 2, 1], "strides": [2, 2], "dilations": [2, 1]},
        {"auto_pad": "VALID"},
    ],
    ids=str,
)
def test_convolution(dtype, per_channel, attributes):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, CHANNELS, 7, 6)).astype(np.float32)
    weight = integers(rng, np.int8, RESULTS, CHANNELS, 3, 3)
    nodes, weights = quantised(rng, dtype, weight, axis=0, per_channel=per_channel)
    weights["bias"] = rng.standard_normal(RESULTS).astype(np.float32)
    check([*nodes, helper.make_node("Conv", ["a", "b", "bias"], ["y"], **attributes)], x, weights)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_convolution_of_what_has_no_zero_point(dtype):
    """As after a ReLU: zero is the least number; padding stays with the convolution."""
    rng = np.random.default_rng(2)
    x = np.abs(rng.standard_normal((1, CHANNELS, 5, 5))).astype(np.float32)
    weight = integers(rng, np.int8, RESULTS, CHANNELS, 3, 3)
    nodes, weights = quantised(rng, dtype, weight, axis=0, zero=np.iinfo(dtype).min)
    nodes.append(helper.make_node("Conv", ["a", "b"], ["y"], pads=[1, 1, 1, 1]))
    check(nodes, x, weights)
    changed = rewrite(model_of(nodes, {"x": x}, ["y"], weights), multiplies_bytes=True)
    assert not operators(changed) & {"Pad", "Sub", "ReduceSum"}


@pytest.mark.parametrize("pads", [None, [0, 0, 0, 0], [1, 0, 2, 1]])
def test_channels_are_filled_up(pads):
    rng = np.random.default_rng(8)
    x = rng.standard_normal((1, 3, 6, 7)).astype(np.float32)
    nodes, weights = quantised(rng, np.uint8, integers(rng, np.int8, RESULTS, 3, 3, 3), axis=0)
    attributes = {} if pads is None else {"pads": pads}
    check([*nodes, helper.make_node("Conv", ["a", "b"], ["y"], **attributes)], x, weights)


UNSUITED = {
    "results that are no whole vectors": ((12, CHANNELS, 3, 3), {}),
    "groups": ((RESULTS, CHANNELS // 2, 3, 3), {"group": 2}),
    "padding that follows the size": ((RESULTS, CHANNELS, 3, 3), {"auto_pad": "SAME_UPPER"}),
}


@pytest.mark.parametrize("name", UNSUITED)
def test_other_convolutions_stay_as_they_are(name):
    shape, attributes = UNSUITED[name]
    rng = np.random.default_rng(3)
    x = rng.standard_normal((1, shape[1] * attributes.get("group", 1), 7, 6)).astype(np.float32)
    nodes, weights = quantised(rng, np.uint8, integers(rng, np.int8, *shape), axis=0)
    check(
        [*nodes, helper.make_node("Conv", ["a", "b"], ["y"], **attributes)],
        x,
        weights,
        is_narrowed=False,
    )


def test_a_weight_around_another_zero_stays_as_it_is():
    rng = np.random.default_rng(4)
    x = rng.standard_normal((3, 8)).astype(np.float32)
    nodes, weights = quantised(rng, np.uint8, integers(rng, np.int8, 8, 16), axis=1)
    weights["wz"] = np.full(16, 3, np.int8)
    check([*nodes, helper.make_node("MatMul", ["a", "b"], ["y"])], x, weights, is_narrowed=False)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("op", ["MatMul", "Gemm", "Gemm turned"])
def test_matrix_product(dtype, per_channel, op):
    rng = np.random.default_rng(5)
    x = rng.standard_normal((3, 20)).astype(np.float32)
    turned = op.endswith("turned")
    weight = integers(rng, np.int8, *((32, 20) if turned else (20, 32)))
    axis = 0 if turned else 1
    nodes, weights = quantised(rng, dtype, weight, axis=axis, per_channel=per_channel)
    if op == "MatMul":
        nodes.append(helper.make_node("MatMul", ["a", "b"], ["y"]))
    else:
        weights["bias"] = rng.standard_normal(32).astype(np.float32)
        inputs = ["a", "b", "bias"]
        nodes.append(helper.make_node("Gemm", inputs, ["y"], transB=int(turned)))
    check(nodes, x, weights)


@pytest.mark.parametrize(("columns", "is_narrowed"), [(100, True), (24, False)])
def test_many_columns_are_filled_up(columns, is_narrowed):
    rng = np.random.default_rng(9)
    x = rng.standard_normal((2, 3, 20)).astype(np.float32)
    nodes, weights = quantised(rng, np.uint8, integers(rng, np.int8, 20, columns), axis=1)
    product = helper.make_node("MatMul", ["a", "b"], ["y"])
    check([*nodes, product], x, weights, is_narrowed=is_narrowed)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_quantised_operators_give_the_same_integers(dtype):
    rng = np.random.default_rng(6)
    weights = {
        "xs": scales(rng),
        "xz": integers(rng, dtype),
        "w": integers(rng, np.int8, RESULTS, CHANNELS, 3, 3),
        "ws": scales(rng, RESULTS),
        "wz": np.zeros(RESULTS, np.int8),
        "ys": np.float32(9.7),
        "yz": integers(rng, dtype),
        "b": rng.integers(-3000, 3000, RESULTS).astype(np.int32),
    }
    conv = helper.make_node("QLinearConv", ["x", *weights], ["y"], pads=[1, 1, 1, 1])
    check_integers([conv], integers(rng, dtype, 2, CHANNELS, 5, 6), weights)
    del weights["b"]
    weights["w"] = integers(rng, np.int8, 40, RESULTS)
    product = helper.make_node("QLinearMatMul", ["x", *weights], ["y"])
    check_integers([product], integers(rng, dtype, 2, 3, 40), weights)


def check_integers(nodes, x, weights):
    model = model_of(nodes, {"x": x}, ["y"], weights)
    expected = run(model, {"x": x})
    changed = rewrite(model, multiplies_bytes=True)
    products = [node for node in changed.graph.node if node.op_type in ("Conv", "MatMul")]
    types = onnx.shape_inference.infer_shapes(changed).graph.value_info
    kinds = {info.name: info.type.tensor_type.elem_type for info in types}
    assert [kinds[node.output[0]] for node in products] == [TensorProto.INT32]
    for got, reference in zip(compiled(changed, {"x": x}), expected, strict=True):
        np.testing.assert_array_equal(got, reference)


def dynamic(*, as_one: bool):
    """Quantising x as it comes, in ONNX's operators or in ONNX Runtime's own."""
    if as_one:
        inputs = ["x", "w", "ws", "", "bias"]
        return [helper.make_node("DynamicQuantizeMatMul", inputs, ["y"], domain="com.microsoft")]
    return [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["a", "as", "az"]),
        helper.make_node("MatMulInteger", ["a", "w", "az"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["as", "ws"], ["scale"]),
        helper.make_node("Mul", ["float", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "bias"], ["y"]),
    ]


@pytest.mark.parametrize("as_one", [False, True])
def test_what_is_quantised_as_it_comes(as_one):
    rng = np.random.default_rng(7)
    x = rng.standard_normal((2, 3, 40)).astype(np.float32)
    weights = {
        "w": integers(rng, np.int8, 40, 32),
        "ws": scales(rng),
        "bias": rng.standard_normal(32).astype(np.float32),
    }
    check(dynamic(as_one=as_one), x, weights)
