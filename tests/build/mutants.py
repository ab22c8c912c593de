"""Small networks that can be built with one thing wrong, as a wrong kernel would have it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tunebank.model import TensorSpec

CONV_INPUTS = (TensorSpec("x", (2, 4, 12, 12), "float32"),)
TOKEN_INPUTS = (
    TensorSpec("ids", (1, 16), "int64", limit=50),
    TensorSpec("mask", (1, 16), "int64"),
)
HIDDEN = 32


class Net:
    """Appends nodes; every method returns the name of its result."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(3)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def op(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def weight(self, values: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def normal(self, *shape: int, scale: float | None = None) -> np.ndarray:
        deviation = scale if scale is not None else np.sqrt(2.0 / np.prod(shape[1:]))
        return (deviation * self.rng.standard_normal(shape)).astype(np.float32)

    def save(
        self, path: Path, inputs: tuple[TensorSpec, ...], outputs: dict[str, tuple[str, int]]
    ) -> Path:
        """Writes the file; `outputs` names, for each output, a result and its data type."""
        for name, (result, _) in outputs.items():
            self.nodes.append(helper.make_node("Identity", [result], [name]))
        types = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info(i.name, types[i.dtype], i.shape) for i in inputs],
            [helper.make_tensor_value_info(n, t, None) for n, (_, t) in outputs.items()],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
        model.ir_version = 9
        onnx.save(model, str(path))
        return path


def write_conv_mutant(path: Path, fault: str = "") -> Path:
    """Convolutions with a quiet side branch, pooling, a classifier; two outputs."""
    net = Net()
    first, bias = net.normal(16, 4, 3, 3), net.normal(16, scale=0.1)
    if fault == "channel scaled":
        first[5] *= 1.01
    if fault == "bias dropped":
        bias[:] = 0
    if fault == "channels swapped":
        first[[3, 4]] = first[[4, 3]]
    if fault == "weights in bfloat16":
        first = (first.view(np.uint32) & 0xFFFF0000).view(np.float32)
    pads = [0, 0, 2, 2] if fault == "padding off by one" else [1, 1, 1, 1]
    x = net.op("Conv", "x", net.weight(first), net.weight(bias), pads=pads)
    x = net.op("Elu" if fault == "other activation" else "Relu", x)
    # The branch adds a hundredth to what it meets.
    branch = net.normal(16, 16, 1, 1, scale=0.0025)
    if fault == "channel of a quiet branch scaled":
        branch[2] *= 1.05
    quiet = net.op("Conv", x, net.weight(branch))
    x = net.op("Conv", x, net.weight(net.normal(16, 16, 3, 3)), pads=[1, 1, 1, 1])
    x = net.op("Relu", net.op("Add", x, quiet))
    pooled = net.op(
        "AveragePool",
        x,
        kernel_shape=[3, 3],
        pads=[1, 1, 1, 1],
        count_include_pad=1 if fault == "padding counted" else 0,
    )
    flat = net.op("Flatten", net.op("GlobalAveragePool", pooled))
    y = net.op("Gemm", flat, net.weight(net.normal(16, 10)))
    outputs = {"y": (y, TensorProto.FLOAT), "map": (pooled, TensorProto.FLOAT)}
    return net.save(path, CONV_INPUTS, outputs)


def write_token_mutant(path: Path, fault: str = "") -> Path:
    """Token ids looked up, masked attention, layer norm, GELU; scores and the best token."""
    net = Net()
    table = net.normal(50, HIDDEN, scale=1.0)
    if fault == "last row of the table":
        table[-1] *= 1.01
    x = net.op("Gather", net.weight(table), "ids")
    query, key, value = (
        net.op("MatMul", x, net.weight(net.normal(HIDDEN, HIDDEN, scale=0.2))) for _ in range(3)
    )
    scores = net.op("MatMul", query, net.op("Transpose", key, perm=[0, 2, 1]))
    scores = net.op("Mul", scores, net.weight(np.float32(0.2 if fault != "scale" else 0.202)))
    is_kept = net.op(
        "Unsqueeze",
        net.op("Cast", "mask", to=TensorProto.FLOAT),
        net.weight(np.array([1], np.int64)),
    )
    penalty = net.op("Mul", net.op("Sub", is_kept, net.weight(np.float32(1))), _big(net))
    if fault != "mask ignored":
        scores = net.op("Add", scores, penalty)
    share = net.op("Softmax", scores, axis=1 if fault == "softmax over the wrong axis" else -1)
    x = net.op("Add", x, net.op("MatMul", share, value))
    ones, zeros = np.ones(HIDDEN, np.float32), np.zeros(HIDDEN, np.float32)
    epsilon = 1e-3 if fault == "epsilon" else 1e-5
    x = net.op(
        "LayerNormalization", x, net.weight(ones), net.weight(zeros), axis=-1, epsilon=epsilon
    )
    x = net.op("MatMul", x, net.weight(net.normal(HIDDEN, HIDDEN, scale=0.2)))
    x = net.op("Gelu", x, approximate="tanh" if fault == "approximate gelu" else "none")
    y = net.op("MatMul", x, net.weight(net.normal(HIDDEN, 50, scale=0.2)))
    best = net.op("ArgMax", y, axis=-1, keepdims=0, select_last_index=0)
    outputs = {"y": (y, TensorProto.FLOAT), "best": (best, TensorProto.INT64)}
    return net.save(path, TOKEN_INPUTS, outputs)


def _big(net: Net) -> str:
    return net.weight(np.float32(1e4))


def write_quantised_mutant(path: Path, fault: str = "") -> Path:
    """Two convolutions between rounds of quantising, as quantisers write them (QDQ)."""
    net = Net()
    zero, step = net.weight(np.int8(0)), {name: np.float32(s) for name, s in _STEPS.items()}
    if fault == "scale":
        step["h"] = np.float32(1.1 * step["h"])

    def rounded(x: str, name: str) -> str:
        if fault == "zero point" and name == "h":
            point = net.weight(np.int8(2))
            quantised = net.op("QuantizeLinear", x, net.weight(step[name]), point)
            return net.op("DequantizeLinear", quantised, net.weight(step[name]), zero)
        quantised = net.op("QuantizeLinear", x, net.weight(step[name]), zero)
        return net.op("DequantizeLinear", quantised, net.weight(step[name]), zero)

    def weight(*shape: int) -> str:
        values = net.normal(*shape)
        scale = np.float32(np.abs(values).max() / 127)
        quantised = net.weight(np.round(values / scale).astype(np.int8))
        return net.op("DequantizeLinear", quantised, net.weight(scale), zero)

    x = rounded("x", "x")
    w0, w1 = weight(16, 4, 3, 3), weight(16, 16, 3, 3)
    x = rounded(net.op("Relu", net.op("Conv", x, w0, pads=[1, 1, 1, 1])), "h")
    if fault == "channels swapped":
        order = [1, 0, *range(2, 16)]
        x = net.op("Gather", x, net.weight(np.array(order, np.int64)), axis=1)
    x = rounded(net.op("Conv", x, w1, pads=[1, 1, 1, 1]), "y")
    return net.save(path, CONV_INPUTS, {"y": (x, TensorProto.FLOAT)})


_STEPS = {"x": 4 / 127, "h": 6 / 127, "y": 8 / 127}
