"""Programs of many operands are not fused: what schedules them would take minutes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from tunebank.model import Model


@pytest.mark.parametrize(("parts", "kernels"), [(4, 1), (12, 2)])
def test_a_concatenation(
    parts: int, kernels: int, tmp_path: Path, read: Callable[..., Model]
) -> None:
    names = [f"x{i}" for i in range(parts)]
    nodes = [
        helper.make_node("Concat", names, ["joined"], axis=0, name="concat"),
        helper.make_node("Relu", ["joined"], ["y"], name="relu"),
    ]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8]) for name in names]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [parts, 8])
    graph = helper.make_graph(nodes, "graph", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "model.onnx"
    onnx.save(model, str(path))
    assert len(read(path).kernels) == kernels
