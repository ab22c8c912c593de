"""Small ONNX files to test the command line with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def save(
    path: Path, nodes: Sequence[onnx.NodeProto], shape: Sequence[int | str], **weights: np.ndarray
) -> Path:
    """Writes a model from input `x` to output `y`."""
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    domains = {node.domain for node in nodes} | {""}
    opsets = [helper.make_opsetid(domain, 17 if not domain else 1) for domain in sorted(domains)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def conv_net(path: Path, *, batch: int | str = 1) -> Path:
    """Two convolutions and a pooling."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"], kernel_shape=[1, 1]),
        helper.make_node("GlobalAveragePool", ["c"], ["y"]),
    ]
    w1 = (rng.standard_normal((16, 4, 3, 3)) / 6).astype("float32")
    w2 = (rng.standard_normal((8, 16, 1, 1)) / 4).astype("float32")
    return save(path, nodes, [batch, 4, 12, 12], w1=w1, w2=w2)


def unary(path: Path, operator: str, shape: Sequence[int], *, domain: str = "") -> Path:
    """One operator on one input."""
    return save(path, [helper.make_node(operator, ["x"], ["y"], domain=domain)], shape)
