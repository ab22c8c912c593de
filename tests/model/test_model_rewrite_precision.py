"""Graphs in half precision that compute in float32."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from rewrite_cases import model_of, run

from tunebank.model.rewrite import upcast

HALF, BFLOAT, FLOAT = TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.FLOAT
rng = np.random.default_rng(1)
node = helper.make_node


def network(dtype, kind):
    """A convolution, a branch of shapes and a matrix product, all in half precision."""
    x = rng.standard_normal((1, 3, 8, 8)).astype(dtype)
    weights = {
        "w": rng.standard_normal((4, 3, 3, 3)).astype(dtype),
        "b": rng.standard_normal(4).astype(dtype),
        "m": (rng.standard_normal((4, 5)) / 4).astype(dtype),
        "shape": np.array([1, 4, 1, 1], np.int64),
    }
    half = numpy_helper.from_array(np.array([0.5], dtype))
    nodes = [
        node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["r"]),
        node("ConstantOfShape", ["shape"], ["k"], value=half),
        node("Mul", ["r", "k"], ["s"]),
        node("Cast", ["s"], ["f"], to=FLOAT),
        node("ReduceMean", ["f"], ["mean"], axes=[2, 3], keepdims=0),
        node("Cast", ["mean"], ["h"], to=kind),
        node("MatMul", ["h", "m"], ["y"]),
    ]
    model = model_of(nodes, {"x": x}, ["y"], weights)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", kind, [1, 5]))
    return model, {"x": x}


def kinds_of(model):
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    return {
        value.type.tensor_type.elem_type
        for value in inferred.value_info
        if value.name not in {tensor.name for tensor in inferred.initializer}
    }


def test_half_precision_is_within_its_tolerance():
    model, inputs = network(np.float16, HALF)
    (expected,) = run(model, inputs)
    changed = upcast(model)
    (got,) = run(changed, inputs)
    assert got.dtype == np.float16
    np.testing.assert_allclose(got, expected, rtol=5e-3, atol=2e-3)
    assert HALF not in kinds_of(changed)


def test_bfloat16_runs_where_onnx_runtime_had_no_operators():
    model, inputs = network(ml_dtypes.bfloat16, BFLOAT)
    with pytest.raises(Exception, match=r"(?i)not.implemented|could not find|type error"):
        run(model, inputs)
    changed = upcast(model)
    wide = onnx.ModelProto()
    wide.CopyFrom(changed)
    # ONNX Runtime takes no bfloat16 arrays from NumPy: the same graph between float32 borders.
    for value in (*wide.graph.input, *wide.graph.output):
        value.type.tensor_type.elem_type = FLOAT
    for cast in wide.graph.node:
        if cast.op_type == "Cast" and cast.output[0] == "y":
            cast.attribute[0].i = FLOAT
    (got,) = run(wide, {"x": inputs["x"].astype(np.float32)})
    (expected,) = run(network_in_float(model), {"x": inputs["x"].astype(np.float32)})
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def network_in_float(model):
    """The network with its weights widened by hand."""
    values = {
        tensor.name.removesuffix("/half"): numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
    }
    weights = {
        name: value if value.dtype == np.int64 else value.astype(np.float32)
        for name, value in values.items()
    }
    nodes = [
        node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["r"]),
        node("Mul", ["r", "half"], ["s"]),
        node("ReduceMean", ["s"], ["mean"], axes=[2, 3], keepdims=0),
        node("MatMul", ["mean", "m"], ["y"]),
    ]
    weights["half"] = np.float32(0.5)
    weights.pop("shape")
    return model_of(nodes, {"x": np.zeros((1, 3, 8, 8), np.float32)}, ["y"], weights)


def test_external_weights_are_cast_and_not_read():
    model, _ = network(np.float16, HALF)
    for tensor in model.graph.initializer:
        if tensor.name == "w":
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            entry = tensor.external_data.add()
            entry.key, entry.value = "location", "nowhere.bin"
    changed = upcast(model)
    casts = {part.output[0]: part for part in changed.graph.node if part.op_type == "Cast"}
    assert casts["w"].input[0] == "w/half"


def test_subgraphs_and_outputs_that_are_used_again():
    body = onnx.parser.parse_graph(
        """body (int64 i, bool go, float16[2] s) => (bool on, float16[2] t) {
            on = Identity(go)
            t = Add(s, x)
        }"""
    )
    x = np.array([0.5, -1], np.float16)
    nodes = [
        node("Loop", ["n", "", "x"], ["y"], body=body),
        node("Mul", ["y", "x"], ["z"]),
    ]
    model = model_of(nodes, {"x": x}, ["y", "z"], {"n": np.int64(3)})
    for value in model.graph.output:
        value.CopyFrom(helper.make_tensor_value_info(value.name, HALF, [2]))
    expected = run(model, {"x": x})
    got = run(upcast(model), {"x": x})
    for value, reference in zip(got, expected, strict=True):
        assert value.dtype == np.float16
        np.testing.assert_allclose(value, reference, rtol=2e-3)


def test_an_input_that_is_an_output_too():
    x = np.array([0.5, -1], np.float16)
    model = model_of([node("Neg", ["x"], ["y"])], {"x": x}, ["x", "y"])
    for value in model.graph.output:
        value.CopyFrom(helper.make_tensor_value_info(value.name, HALF, [2]))
    first, second = run(upcast(model), {"x": x})
    np.testing.assert_array_equal(first, x)
    np.testing.assert_array_equal(second, -x)


def test_a_float32_model_is_left_alone():
    x = np.ones(3, np.float32)
    model = model_of([node("Neg", ["x"], ["y"])], {"x": x}, ["y"])
    before = model.SerializeToString()
    assert upcast(model).SerializeToString() == before
