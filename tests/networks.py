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


def write_dense_network(path: Path, *, repeated: int) -> Path:
    """(8, 48) → (8, 10), hidden layers of one shape: few kernels, and quick to tune."""
    g = GraphBuilder(seed=7)
    x = "x"
    for _ in range(repeated):
        x = g.op("Relu", g.dense(x, 48, 48))
    x = g.op("Softmax", g.dense(x, 48, 10))
    onnx.save(g.finish("dense", x, input_shape=(8, 48), output_shape=(8, 10)), str(path))
    return path


def write_separable_network(
    folder: Path,
    *,
    inputs: int = 16,
    expansion: int = 1,
    is_read_twice: bool = False,
    is_output: bool = False,
) -> Path:
    """An expansion of 16 channels to 96, a depthwise convolution, and a projection, as a file.

    Args:
        folder: where to write it.
        inputs: channels of the image.
        expansion: window of the first convolution.
        is_read_twice: whether a second kernel reads the expansion.
        is_output: whether the expansion is what the network returns, too.
    """
    g = GraphBuilder()
    x = g.conv_bn("x", inputs, 96, kernel=expansion)
    y = g.conv_bn(x, 96, 96, kernel=3, groups=96)
    y = g.conv_bn(y, 96, 24, kernel=1, act="")
    if is_read_twice:
        y = g.op("Add", y, g.conv_bn(x, 96, 24, kernel=1, act=""))
    shape = (1, 24, 48, 48)
    model = g.finish("separable", y, input_shape=(1, inputs, 48, 48), output_shape=shape)
    if is_output:
        float32 = onnx.TensorProto.FLOAT
        model.graph.output.append(onnx.helper.make_tensor_value_info(x, float32, [1, 96, 48, 48]))
    path = folder / "separable.onnx"
    onnx.save(model, str(path))
    return path


def write_attention_network(
    folder: Path,
    *,
    batch: int = 1,
    heads: int = 3,
    length: int = 37,
    depth: int = 20,
    scale: bool = True,
    mask: bool = False,
    shared: bool = False,
    spread: str = "",
    also: str = "",
) -> Path:
    """Attention over a text of `length`, as a file.

    Args:
        folder: where to write it.
        batch: how many texts.
        heads: how many heads.
        length: of a text.
        depth: of a head.
        scale: whether the scores are scaled.
        mask: whether a constant is added to them.
        shared: whether all heads have the same keys and values.
        spread: an operator on the weights before they are used.
        also: `weights` or `scores` are returned beside the result.
    """
    g = GraphBuilder()
    width = heads * depth
    rng = np.random.default_rng(3)

    def number(value: object) -> str:
        return g._weight(np.asarray(value))

    def integers(*values: int) -> str:
        return g.op("Cast", number(values), to=onnx.TensorProto.INT64)

    def projected(count: int, order: list[int]) -> str:
        weight = rng.standard_normal((width, count * depth)) / np.sqrt(width)
        rows = g.op("MatMul", "x", number(weight))
        parts = g.op("Reshape", rows, integers(batch, length, count, depth))
        return g.op("Transpose", parts, perm=order)

    own = 1 if shared else heads
    q = projected(heads, [0, 2, 1, 3])
    k, v = projected(own, [0, 2, 3, 1]), projected(own, [0, 2, 1, 3])
    scores = g.op("MatMul", q, k)
    if scale:
        scores = g.op("Mul", scores, number(1.5))
    if mask:
        future = np.triu(np.full((length, length), -1e4), 1)
        scores = g.op("Add", scores, number(future[None, None]))
    weights = g.op("Softmax", scores, axis=-1)
    along = [integers(2)] if spread == "CumSum" else []
    used = g.op(spread, weights, *along) if spread else weights
    result = g.op("MatMul", used, v)
    shape = (batch, heads, length, depth)
    if also:
        other = g.op("Relu", {"weights": weights, "scores": scores}[also])
        result = g.op("Add", result, g.op("MatMul", other, v))
    model = g.finish("net", result, input_shape=(batch, length, width), output_shape=shape)
    path = folder / "net.onnx"
    onnx.save(model, str(path))
    return path
