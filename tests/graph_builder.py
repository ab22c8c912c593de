"""Networks built by name as ONNX, with random weights: only structure matters to speed.

Weights are drawn with He scaling, so that activations stay near 1 and a numerical
comparison between two runtimes means something.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tunebank.errors import UsageError

OPSET = 17


class GraphBuilder:
    """Appends ONNX nodes to one graph; every method returns the name of its result."""

    def __init__(self, *, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []

    def _result(self, op: str, inputs: list[str], **attributes: object) -> str:
        name = f"{op.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def _weight(self, array: np.ndarray) -> str:
        name = f"weight_{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name

    def conv(
        self, x: str, cin: int, cout: int, *, kernel: int, stride: int = 1, groups: int = 1
    ) -> str:
        """Convolution of (N, cin, H, W), "same" padding for odd kernels, no bias."""
        scale = math.sqrt(2.0 / (cin // groups * kernel * kernel))
        shape = (cout, cin // groups, kernel, kernel)
        weight = self._weight(self._rng.standard_normal(shape) * scale)
        pad = kernel // 2
        return self._result(
            "Conv",
            [x, weight],
            kernel_shape=[kernel] * 2,
            strides=[stride] * 2,
            pads=[pad] * 4,
            group=groups,
        )

    def batch_norm(self, x: str, channels: int) -> str:
        """Batch normalisation with random statistics near the identity."""
        uniform = self._rng.uniform
        arrays = (
            uniform(0.9, 1.1, channels),
            uniform(-0.1, 0.1, channels),
            uniform(-0.1, 0.1, channels),
            uniform(0.9, 1.1, channels),
        )
        return self._result("BatchNormalization", [x, *map(self._weight, arrays)])

    def conv_bn(
        self,
        x: str,
        cin: int,
        cout: int,
        *,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        act: str = "Relu",
    ) -> str:
        """Convolution, batch norm and (unless `act` is empty) an activation."""
        x = self.conv(x, cin, cout, kernel=kernel, stride=stride, groups=groups)
        x = self.batch_norm(x, cout)
        return self.op(act, x) if act else x

    def dense(self, x: str, cin: int, cout: int) -> str:
        """Fully connected layer of (N, cin)."""
        weight = self._rng.standard_normal((cout, cin)) * math.sqrt(1.0 / cin)
        bias = self._rng.uniform(-0.1, 0.1, cout)
        return self._result("Gemm", [x, self._weight(weight), self._weight(bias)], transB=1)

    def op(self, name: str, *inputs: str, **attributes: object) -> str:
        """Any other operator."""
        return self._result(name, list(inputs), **attributes)

    def finish(
        self, name: str, output: str, *, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
    ) -> onnx.ModelProto:
        """The checked model, with one input `x` and one output `y`."""
        self._nodes.append(helper.make_node("Identity", [output], ["y"], name="y"))
        graph = helper.make_graph(
            self._nodes,
            name,
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(input_shape))],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, list(output_shape))],
            self._weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
        model.ir_version = 8
        onnx.checker.check_model(model)
        return model


def _basic_block(g: GraphBuilder, x: str, cin: int, width: int, stride: int) -> str:
    y = g.conv_bn(x, cin, width, kernel=3, stride=stride)
    y = g.conv_bn(y, width, width, kernel=3, act="")
    if stride != 1 or cin != width:
        x = g.conv_bn(x, cin, width, kernel=1, stride=stride, act="")
    return g.op("Relu", g.op("Add", x, y))


def _bottleneck(g: GraphBuilder, x: str, cin: int, width: int, stride: int) -> str:
    y = g.conv_bn(x, cin, width, kernel=1)
    y = g.conv_bn(y, width, width, kernel=3, stride=stride)
    y = g.conv_bn(y, width, 4 * width, kernel=1, act="")
    if stride != 1 or cin != 4 * width:
        x = g.conv_bn(x, cin, 4 * width, kernel=1, stride=stride, act="")
    return g.op("Relu", g.op("Add", x, y))


def _resnet(
    name: str,
    blocks: tuple[int, int, int, int],
    block: Callable[[GraphBuilder, str, int, int, int], str],
    expansion: int,
) -> onnx.ModelProto:
    """ResNet, version 1.5 (stride in the 3x3 convolution): He et al., arXiv 1512.03385."""
    g = GraphBuilder()
    x = g.conv_bn("x", 3, 64, kernel=7, stride=2)
    x = g.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = 64
    for stage, count in enumerate(blocks):
        width = 64 << stage
        for index in range(count):
            x = block(g, x, channels, width, 2 if stage > 0 and index == 0 else 1)
            channels = width * expansion
    x = g.op("Flatten", g.op("GlobalAveragePool", x))
    x = g.dense(x, channels, 1000)
    return g.finish(name, x, input_shape=(1, 3, 224, 224), output_shape=(1, 1000))


def _mobilenet_v2() -> onnx.ModelProto:
    """MobileNetV2, width 1.0: Sandler et al., arXiv 1801.04381, table 2."""
    g = GraphBuilder()
    x = g.conv_bn("x", 3, 32, kernel=3, stride=2, act="")
    low, high = (g._weight(np.array(v)) for v in (0.0, 6.0))

    def relu6(x: str) -> str:
        return g.op("Clip", x, low, high)

    x, cin = relu6(x), 32
    rows = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1))
    for expand, cout, repeat, first_stride in (*rows, (6, 160, 3, 2), (6, 320, 1, 1)):
        for index in range(repeat):
            stride = first_stride if index == 0 else 1
            y, mid = x, cin * expand
            if expand != 1:
                y = relu6(g.conv_bn(y, cin, mid, kernel=1, act=""))
            y = relu6(g.conv_bn(y, mid, mid, kernel=3, stride=stride, groups=mid, act=""))
            y = g.conv_bn(y, mid, cout, kernel=1, act="")
            x = g.op("Add", x, y) if stride == 1 and cin == cout else y
            cin = cout
    x = relu6(g.conv_bn(x, cin, 1280, kernel=1, act=""))
    x = g.dense(g.op("Flatten", g.op("GlobalAveragePool", x)), 1280, 1000)
    return g.finish("mobilenet_v2", x, input_shape=(1, 3, 224, 224), output_shape=(1, 1000))


NETWORKS: dict[str, Callable[[], onnx.ModelProto]] = {
    "resnet18": lambda: _resnet("resnet18", (2, 2, 2, 2), _basic_block, 1),
    "resnet34": lambda: _resnet("resnet34", (3, 4, 6, 3), _basic_block, 1),
    "resnet50": lambda: _resnet("resnet50", (3, 4, 6, 3), _bottleneck, 4),
    "mobilenet_v2": _mobilenet_v2,
}


def build_network(name: str) -> onnx.ModelProto:
    """The network of that name.

    Raises:
        UsageError: no such network.
    """
    if name not in NETWORKS:
        raise UsageError(f"no network named {name!r}; there are: {', '.join(NETWORKS)}")
    return NETWORKS[name]()


def write_network(name: str, path: Path) -> None:
    """Writes the network of that name as an ONNX file."""
    onnx.save(build_network(name), str(path))
