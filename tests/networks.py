"""A small network with what matters: convolutions, batch norm, ReLU6, a skip, pooling, Gemm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from graph_builder import GraphBuilder


def small_network(*, repeated: int = 3) -> onnx.ModelProto:
    """(1, 3, 12, 12) → (1, 10); `repeated` residual layers of one shape."""
    g = GraphBuilder(seed=7)
    low, high = (g._weight(np.array(value)) for value in (0.0, 6.0))
    x = g.op("Clip", g.conv_bn("x", 3, 16, kernel=3, act=""), low, high)
    for _ in range(repeated):
        y = g.op("Clip", g.conv_bn(x, 16, 16, kernel=3, act=""), low, high)
        x = g.op("Add", x, y)
    x = g.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = g.op("Clip", g.conv_bn(x, 16, 24, kernel=1, act=""), low, high)
    x = g.op("Flatten", g.op("GlobalAveragePool", x))
    x = g.dense(x, 24, 10)
    return g.finish("small", x, input_shape=(1, 3, 12, 12), output_shape=(1, 10))


def write_small_network(folder: Path, *, repeated: int = 3) -> Path:
    """The network as a file."""
    path = folder / "small.onnx"
    onnx.save(small_network(repeated=repeated), str(path))
    return path
