"""The layout pass: convolutions in NHWC whatever stands between them, and the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import tvm
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from tvm import relax

from tunebank.device import Device
from tunebank.model import Model

Read = Callable[..., Model]
Draw = Callable[[st.SearchStrategy], object]


class Net:
    """A growing graph over tensors (N, C, H, W), and what is known of their shapes."""

    def __init__(self, seed: int, shape: tuple[int, ...]) -> None:
        self._rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.shapes: dict[str, tuple[int, ...]] = {"x": shape}

    def weight(self, *shape: int, scale: float | None = None) -> str:
        name = f"w{len(self.weights)}"
        size = scale or np.sqrt(2.0 / max(1, np.prod(shape[1:])))
        values = (self._rng.standard_normal(shape) * size).astype(np.float32)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def integers(self, *values: int) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def add(
        self, operator: str, inputs: list[str], shape: tuple[int, ...], **attributes: object
    ) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        self.shapes[name] = shape
        return name

    def write(self, path: Path, outputs: list[str]) -> None:
        values = [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, self.shapes[n]) for n in outputs
        ]
        first = helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shapes["x"])
        graph = helper.make_graph(self.nodes, "net", [first], values, self.weights)
        opsets = [helper.make_opsetid("", 17)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, str(path))


def conv(net: Net, x: str, draw: Draw) -> str:
    n, c, h, w = net.shapes[x]
    k, stride = draw(st.sampled_from([1, 3])), draw(st.sampled_from([1, 2]))
    groups = draw(st.sampled_from([g for g in (1, 2, c) if c % g == 0]))
    out = groups * draw(st.integers(1, 3))
    size = [(e + 2 * (k // 2) - k) // stride + 1 for e in (h, w)]
    inputs = [x, net.weight(out, c // groups, k, k), net.weight(out, scale=0.1)]
    attributes = {"kernel_shape": [k, k], "pads": [k // 2] * 4, "strides": [stride] * 2}
    return net.add("Conv", inputs, (n, out, *size), group=groups, **attributes)


def transposed_conv(net: Net, x: str, draw: Draw) -> str:
    n, c, h, w = net.shapes[x]
    k, stride = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    groups = draw(st.sampled_from([g for g in (1, 2) if c % g == 0]))
    pads = [draw(st.integers(0, k - 1)) for _ in range(4)]
    extra = [draw(st.integers(0, stride - 1)) for _ in range(2)]
    size = [(e - 1) * stride - pads[i] - pads[i + 2] + k + extra[i] for i, e in enumerate((h, w))]
    if min(size) < 1:
        return x
    out = draw(st.integers(1, 3))
    attributes = {"kernel_shape": [k, k], "pads": pads, "strides": [stride] * 2}
    attributes |= {"output_padding": extra, "group": groups}
    weight = net.weight(c, out, k, k)
    return net.add("ConvTranspose", [x, weight], (n, groups * out, *size), **attributes)


def activation(net: Net, x: str, draw: Draw) -> str:
    operator = draw(st.sampled_from(["Relu", "Sigmoid", "Tanh", "Neg", "LeakyRelu", "Softplus"]))
    return net.add(operator, [x], net.shapes[x])


def prelu(net: Net, x: str, draw: Draw) -> str:
    return net.add("PRelu", [x, net.weight(net.shapes[x][1], 1, 1)], net.shapes[x])


def scaled(net: Net, x: str, draw: Draw) -> str:
    _, c, h, w = net.shapes[x]
    shape = draw(st.sampled_from([(c, 1, 1), (1, c, 1, 1), (w,), (h, 1), (), (1, c, h, w)]))
    operator = draw(st.sampled_from(["Add", "Mul", "Sub", "Max"]))
    operands = [x, net.weight(*shape, scale=1.0)]
    if draw(st.booleans()):
        operands.reverse()
    return net.add(operator, operands, net.shapes[x])


def residual(net: Net, x: str, draw: Draw) -> str:
    same = [name for name, shape in net.shapes.items() if shape == net.shapes[x]]
    return net.add("Add", [x, draw(st.sampled_from(same))], net.shapes[x])


def pool(net: Net, x: str, draw: Draw) -> str:
    n, c, h, w = net.shapes[x]
    if min(h, w) < 2:
        return net.add("GlobalAveragePool", [x], (n, c, 1, 1))
    operator = draw(st.sampled_from(["MaxPool", "AveragePool", "GlobalAveragePool"]))
    if operator == "GlobalAveragePool":
        return net.add(operator, [x], (n, c, 1, 1))
    return net.add(operator, [x], (n, c, h // 2, w // 2), kernel_shape=[2, 2], strides=[2, 2])


def concat(net: Net, x: str, draw: Draw) -> str:
    n, c, h, w = net.shapes[x]
    axis = draw(st.sampled_from([1, 2, 3, -3]))
    shape = [n, c, h, w]
    shape[axis] *= 2
    return net.add("Concat", [x, x], tuple(shape), axis=axis)


def sliced(net: Net, x: str, draw: Draw) -> str:
    shape = list(net.shapes[x])
    axis = draw(st.sampled_from([1, 2, 3]))
    end = draw(st.integers(1, shape[axis]))
    inputs = [x, net.integers(0), net.integers(end), net.integers(axis)]
    shape[axis] = end
    return net.add("Slice", inputs, tuple(shape))


def padded(net: Net, x: str, draw: Draw) -> str:
    n, c, h, w = net.shapes[x]
    return net.add("Pad", [x, net.integers(0, 0, 1, 0, 0, 0, 0, 2)], (n, c, h + 1, w + 2))


def reduced(net: Net, x: str, draw: Draw) -> str:
    n, c, h, w = net.shapes[x]
    axes = draw(st.sampled_from([[1], [2, 3], [3], [-1, -2]]))
    shape = [1 if i in [a % 4 for a in axes] else e for i, e in enumerate((n, c, h, w))]
    return net.add("ReduceMean", [x], tuple(shape), axes=axes, keepdims=1)


def softmax(net: Net, x: str, draw: Draw) -> str:
    return net.add("Softmax", [x], net.shapes[x], axis=draw(st.sampled_from([1, 2, 3, -1])))


def upsampled(net: Net, x: str, draw: Draw) -> str:
    n, c, h, w = net.shapes[x]
    if h * w > 400:
        return x
    sizes = net.integers(n, c, 2 * h, 2 * w)
    mode = draw(st.sampled_from(["nearest", "linear"]))
    return net.add("Resize", [x, "", "", sizes], (n, c, 2 * h, 2 * w), mode=mode)


def normed(net: Net, x: str, draw: Draw) -> str:
    c = net.shapes[x][1]
    inputs = [x, net.weight(c, scale=1.0), net.weight(c, scale=0.1)]
    # A channel that is nearly constant would enlarge the rounding errors before it.
    return net.add("InstanceNormalization", inputs, net.shapes[x], epsilon=0.1)


def normed_in_groups(net: Net, x: str, draw: Draw) -> str:
    """As exporters write it: a reshape, an InstanceNormalization, a reshape back."""
    n, c, h, w = net.shapes[x]
    groups = draw(st.sampled_from([g for g in range(1, c + 1) if c % g == 0]))
    each = (n, groups, c // groups * h * w)
    flat = net.add("Reshape", [x, net.integers(*each)], each)
    inputs = [flat, net.weight(groups, scale=1.0), net.weight(groups, scale=0.1)]
    normal = net.add("InstanceNormalization", inputs, each, epsilon=0.1)
    back = net.add("Reshape", [normal, net.integers(n, c, h, w)], (n, c, h, w))
    return net.add("Mul", [back, net.weight(c, 1, 1, scale=1.0)], (n, c, h, w))


def shuffled(net: Net, x: str, draw: Draw) -> str:
    n, c, h, w = net.shapes[x]
    groups = draw(st.sampled_from([g for g in range(1, c + 1) if c % g == 0]))
    shape = (n, groups, c // groups, h, w)
    grouped = net.add("Reshape", [x, net.integers(*shape)], shape)
    swapped = (n, c // groups, groups, h, w)
    mixed = net.add("Transpose", [grouped], swapped, perm=[0, 2, 1, 3, 4])
    return net.add("Reshape", [mixed, net.integers(n, c, h, w)], (n, c, h, w))


def turned(net: Net, x: str, draw: Draw) -> str:
    """Channels last and back, as models from other frameworks do, with a sum in between."""
    n, c, h, w = net.shapes[x]
    last = net.add("Transpose", [x], (n, h, w, c), perm=[0, 2, 3, 1])
    added = net.add("Add", [last, net.weight(c, scale=1.0)], (n, h, w, c))
    return net.add("Transpose", [added], (n, c, h, w), perm=[0, 3, 1, 2])


def flattened(net: Net, x: str, draw: Draw) -> str:
    n, c, h, w = net.shapes[x]
    flat = net.add("Reshape", [x, net.integers(n, c, h * w)], (n, c, h * w))
    if draw(st.booleans()):
        turn = net.add("Transpose", [flat], (n, h * w, c), perm=[0, 2, 1])
        flat = net.add("Transpose", [turn], (n, c, h * w), perm=[0, 2, 1])
    return net.add("Reshape", [flat, net.integers(n, c, h, w)], (n, c, h, w))


STEPS = (
    conv,
    conv,
    transposed_conv,
    activation,
    prelu,
    scaled,
    residual,
    pool,
    concat,
    sliced,
    padded,
    reduced,
    softmax,
    upsampled,
    normed,
    normed_in_groups,
    shuffled,
    turned,
    flattened,
)


BETWEEN = (turned, flattened, normed_in_groups)


@st.composite
def nets(draw: Draw) -> tuple[Net, list[str]]:
    shape = (draw(st.sampled_from([1, 2])), draw(st.sampled_from([2, 3, 4])), 6, 5)
    net = Net(draw(st.integers(0, 2**16)), shape)
    x = conv(net, "x", draw)
    for step in draw(st.lists(st.sampled_from(STEPS), min_size=2, max_size=7)):
        x = step(net, x, draw)
    other = draw(st.sampled_from([name for name in net.shapes if name != "x"]))
    return net, list(dict.fromkeys([x, other]))


def assert_same_numbers(read: Read, path: Path, device: Device) -> Model:
    """The graph unscheduled against ONNX Runtime without optimisations."""
    model = read(path)
    x = np.random.default_rng(3).standard_normal(model.inputs[0].shape).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    expected = session.run(None, {"x": x})
    machine = relax.VirtualMachine(tvm.compile(model.module, target=device.tvm_target()), tvm.cpu())
    result = machine["main"](tvm.runtime.tensor(x))
    actual = [result] if hasattr(result, "numpy") else list(result)
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        assert one.shape == other.shape
        scale = max(1.0, float(np.abs(other).max()))
        np.testing.assert_allclose(one.numpy(), other, rtol=0, atol=2e-5 * scale)
    return model


@settings(
    max_examples=18,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # each example takes a second: to make a failing one small, hours
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(drawn=nets())
def test_any_graph_keeps_its_numbers(
    drawn: tuple[Net, list[str]], read: Read, tmp_path: Path, device: Device
) -> None:
    net, outputs = drawn
    path = tmp_path / "net.onnx"
    net.write(path, outputs)
    model = assert_same_numbers(read, path, device)
    assert model.front_half.strategy == "full", model.warnings
    assert set(model.front_half.convolutions) <= {"NHWC"}


@settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_what_stands_between_two_convolutions_costs_no_transposition(
    data: st.DataObject, read: Read, tmp_path: Path, device: Device
) -> None:
    net = Net(0, (1, 4, 6, 5))
    x = net.add("Conv", ["x", net.weight(4, 4, 1, 1)], (1, 4, 6, 5), kernel_shape=[1, 1])
    for step in (*BETWEEN, normed, prelu, upsampled, padded, concat, softmax):
        if data.draw(st.booleans(), label=step.__name__):
            x = step(net, x, data.draw)
    _, channels, *size = net.shapes[x]
    y = net.add("Conv", [x, net.weight(4, channels, 1, 1)], (1, 4, *size), kernel_shape=[1, 1])
    path = tmp_path / "net.onnx"
    net.write(path, [y])
    model = assert_same_numbers(read, path, device)
    moved = sum(kernel.weight for kernel in model.kernels if "transpose" in kernel.name)
    assert moved <= 2, "the input, and the output"


def test_channels_are_shuffled_channels_last(read: Read, tmp_path: Path, device: Device) -> None:
    net = Net(0, (2, 6, 6, 5))
    x = net.add("Conv", ["x", net.weight(6, 6, 1, 1)], (2, 6, 6, 5), kernel_shape=[1, 1])
    shape = (2, 3, 2, 6, 5)
    grouped = net.add("Reshape", [x, net.integers(*shape)], shape)
    mixed = net.add("Transpose", [grouped], (2, 2, 3, 6, 5), perm=[0, 2, 1, 3, 4])
    x = net.add("Reshape", [mixed, net.integers(2, 6, 6, 5)], (2, 6, 6, 5))
    y = net.add("Conv", [x, net.weight(4, 6, 1, 1)], (2, 4, 6, 5), kernel_shape=[1, 1])
    path = tmp_path / "net.onnx"
    net.write(path, [y])
    model = assert_same_numbers(read, path, device)
    names = sorted(kernel.name for kernel in model.kernels)
    assert names == ["conv2d", "conv2d", "reshape_transpose_reshape", "transpose", "transpose"]


def test_volumes_are_channels_last_from_one_convolution_to_the_next(
    read: Read, tmp_path: Path, device: Device
) -> None:
    net = Net(0, (2, 4, 5, 8, 6))
    weights = [net.weight(6, 4, 3, 3, 3), net.weight(6, scale=0.1)]
    around = {"kernel_shape": [3] * 3, "pads": [1] * 6}
    x = net.add("Conv", ["x", *weights], (2, 6, 3, 4, 6), strides=[2, 2, 1], **around)
    x = net.add("Relu", [x], net.shapes[x])
    x = net.add("MaxPool", [x], (2, 6, 3, 2, 3), strides=[1, 2, 2], **around)
    x = net.add("AveragePool", [x], (2, 6, 2, 1, 2), kernel_shape=[2, 2, 2])
    window = {"kernel_shape": [2, 1, 1], "dilations": [1, 1, 1]}
    x = net.add("Conv", [x, net.weight(6, 1, 2, 1, 1)], (2, 6, 1, 1, 2), group=6, **window)
    y = net.add("Conv", [x, net.weight(4, 3, 1, 1, 1)], (2, 4, 1, 1, 2), group=2)
    path = tmp_path / "net.onnx"
    net.write(path, [y])
    model = assert_same_numbers(read, path, device)
    assert model.front_half.convolutions == {"NDHWC": 3}
    moved = [kernel.name for kernel in model.kernels if "transpose" in kernel.name]
    assert len(moved) <= 2, "the input, and the output"
