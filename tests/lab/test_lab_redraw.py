"""Constant weights drawn anew: same graph, outputs that follow the inputs."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from tunebank.lab.redraw import redraw_weights


def constant_weight_net() -> onnx.ModelProto:
    """conv, relu, flatten, gemm, softmax, every weight made by `ConstantOfShape`."""
    shapes = {"w": (8, 3, 3, 3), "b": (8,), "v": (10, 8 * 36), "c": (10,)}
    value = helper.make_tensor("value", TensorProto.FLOAT, [1], [0.5])
    nodes = [
        helper.make_node("ConstantOfShape", [f"{name}_shape"], [name], value=value)
        for name in shapes
    ]
    nodes += [
        helper.make_node("Conv", ["x", "w", "b"], ["y"]),
        helper.make_node("Relu", ["y"], ["z"]),
        helper.make_node("Flatten", ["z"], ["f"]),
        helper.make_node("Gemm", ["f", "v", "c"], ["g"], transB=1),
        helper.make_node("Softmax", ["g"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 8, 8))],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, (1, 10))],
        [numpy_helper.from_array(np.array(s, np.int64), f"{n}_shape") for n, s in shapes.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    return model


def outputs(model: onnx.ModelProto) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    rng = np.random.default_rng(1)
    inputs = [rng.standard_normal((1, 3, 8, 8)).astype(np.float32) for _ in range(2)]
    return [session.run(None, {"x": x})[0] for x in inputs]


def test_outputs_follow_the_inputs() -> None:
    one, other = outputs(constant_weight_net())
    assert np.allclose(one, other)
    one, other = outputs(redraw_weights(constant_weight_net()))
    assert np.abs(one - other).max() > 0.01
    assert one.max() < 0.999  # not saturated


def test_the_structure_stays() -> None:
    before = constant_weight_net()
    after = redraw_weights(before)
    kept = [node.op_type for node in before.graph.node if node.op_type != "ConstantOfShape"]
    assert [node.op_type for node in after.graph.node] == kept
    drawn = {t.name: tuple(t.dims) for t in after.graph.initializer}
    assert drawn["w"] == (8, 3, 3, 3)
    assert drawn["v"] == (10, 8 * 36)
    assert [node.op_type for node in before.graph.node].count("ConstantOfShape") == 4
