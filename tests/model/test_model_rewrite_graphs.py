"""Graphs of several operators, drawn at random: the rewritten one gives the same numbers."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from rewrite_cases import check, model_of, run

from tunebank.model.rewrite import rewrite, unsupported


@dataclass
class Drawn:
    """A graph while it is drawn: names of values with their shapes."""

    rng: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def op(self, op_type, inputs, shape, **attributes):
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, list(inputs), [name], name, **attributes))
        self.shapes[name] = tuple(shape)
        return name

    def weight(self, *shape, dtype=np.float32, value=None):
        name = f"w{len(self.weights)}"
        drawn = self.rng.standard_normal(shape) if value is None else np.asarray(value)
        self.weights[name] = drawn.astype(dtype)
        return name


def convolution(draw, graph, x):
    shape = graph.shapes[x]
    if len(shape) not in (3, 4):
        return None
    channels = draw(st.sampled_from([2, 4]))
    groups = 2 if shape[1] % 2 == 0 and draw(st.booleans()) else 1
    kernel = [draw(st.sampled_from([1, 3])) for _ in shape[2:]]
    weight = graph.weight(channels, shape[1] // groups, *kernel)
    pads = [k // 2 for k in kernel] * 2
    out = (shape[0], channels, *shape[2:])
    return graph.op("Conv", [x, weight], out, group=groups, pads=pads, kernel_shape=kernel)


def pooling(draw, graph, x):
    shape = graph.shapes[x]
    if len(shape) not in (3, 4) or min(shape[2:]) < 2:
        return None
    op = draw(st.sampled_from(["MaxPool", "AveragePool"]))
    out = (*shape[:2], *(extent // 2 for extent in shape[2:]))
    dims = len(shape) - 2
    return graph.op(op, [x], out, kernel_shape=[2] * dims, strides=[2] * dims)


def elementwise(draw, graph, x):
    op = draw(st.sampled_from(["Relu", "Sigmoid", "Tanh", "Abs", "Neg", "Identity", "HardSwish"]))
    return graph.op(op, [x], graph.shapes[x])


def power(draw, graph, x):
    exponent = graph.weight(value=draw(st.sampled_from([1.0, 2.0, 3.0])))
    return graph.op("Pow", [x, exponent], graph.shapes[x])


def clip(draw, graph, x):
    bounds = [graph.weight(value=-1.0), graph.weight(value=6.0)]
    return graph.op("Clip", [x, *bounds], graph.shapes[x])


def residual(draw, graph, x):
    same = sorted(name for name, shape in graph.shapes.items() if shape == graph.shapes[x])
    count = draw(st.integers(1, 4))
    op = "Sum" if count > 1 else draw(st.sampled_from(["Add", "Mul", "Sub"]))
    others = [draw(st.sampled_from(same)) for _ in range(count)]
    return graph.op(op, [x, *others], graph.shapes[x])


def concatenation(draw, graph, x):
    shape = graph.shapes[x]
    axis = draw(st.integers(0, len(shape) - 1))
    same = sorted(name for name, other in graph.shapes.items() if other == shape)
    other = draw(st.sampled_from(same))
    out = tuple(2 * e if number == axis else e for number, e in enumerate(shape))
    if np.prod(out) > 4096:
        return None
    return graph.op("Concat", [x, other], out, axis=axis)


def slicing(draw, graph, x):
    shape = graph.shapes[x]
    axis = draw(st.integers(0, len(shape) - 1))
    start, end = draw(st.sampled_from([(0, 2**63 - 1), (1, 2**31 - 1), (-1, 2**63 - 1)]))
    length = len(range(*slice(start, end).indices(shape[axis])))
    if length == 0:
        return None
    lists = [graph.weight(1, dtype=np.int64, value=[v]) for v in (start, end, axis)]
    out = tuple(length if number == axis else e for number, e in enumerate(shape))
    return graph.op("Slice", [x, *lists], out)


def transposition(draw, graph, x):
    shape = graph.shapes[x]
    perm = draw(st.permutations(range(len(shape))))
    return graph.op("Transpose", [x], [shape[axis] for axis in perm], perm=list(perm))


def flattening(draw, graph, x):
    shape = graph.shapes[x]
    target = (shape[0], 1, int(np.prod(shape[1:])))
    sizes = graph.weight(dtype=np.int64, value=target)
    return graph.op("Reshape", [x, sizes], target)


def reduction(draw, graph, x):
    shape = graph.shapes[x]
    if len(shape) < 2:
        return None
    axis = draw(st.integers(0, len(shape) - 1))
    op = draw(st.sampled_from(["ReduceMean", "ReduceMax", "ReduceL2"]))
    out = tuple(1 if number == axis else e for number, e in enumerate(shape))
    return graph.op(op, [x], out, axes=[axis], keepdims=1)


def product(draw, graph, x):
    shape = graph.shapes[x]
    columns = draw(st.integers(1, 5))
    return graph.op("MatMul", [x, graph.weight(shape[-1], columns)], (*shape[:-1], columns))


def normalisation(draw, graph, x):
    width = graph.shapes[x][-1]
    inputs = [x, graph.weight(width), graph.weight(width)]
    return graph.op("LayerNormalization", inputs, graph.shapes[x], epsilon=1e-2)


def quantisation(draw, graph, x):
    scale, zero = (
        graph.weight(value=0.05),
        graph.weight(value=draw(st.integers(0, 255)), dtype=np.uint8),
    )
    quantised = graph.op("QuantizeLinear", [x, scale, zero], graph.shapes[x])
    del graph.shapes[quantised]  # no float, so not for other operators
    return graph.op("DequantizeLinear", [quantised, scale, zero], graph.shapes[x])


def enlargement(draw, graph, x):
    shape = graph.shapes[x]
    if len(shape) != 4 or np.prod(shape) > 1024:
        return None
    scales = graph.weight(value=[1, 1, 2, 2])
    mode = draw(st.sampled_from(["nearest", "linear"]))
    out = (*shape[:2], 2 * shape[2], 2 * shape[3])
    return graph.op("Resize", [x, "", scales], out, mode=mode)


STEPS = [
    convolution,
    convolution,
    pooling,
    elementwise,
    power,
    clip,
    residual,
    concatenation,
    slicing,
    transposition,
    flattening,
    reduction,
    product,
    normalisation,
    quantisation,
    enlargement,
]


@st.composite
def graphs(draw):
    """A model of up to twelve operators with inputs."""
    graph = Drawn(np.random.default_rng(draw(st.integers(0, 2**32 - 1))))
    shape = draw(st.sampled_from([(1, 2, 6, 6), (2, 4, 5, 7), (2, 3, 8), (1, 4, 9), (3, 4)]))
    graph.shapes["x"] = shape
    last = "x"
    for _ in range(draw(st.integers(1, 12))):
        step = draw(st.sampled_from(STEPS))
        last = step(draw, graph, last) or last
    if last == "x":
        last = graph.op("Relu", ["x"], shape)
    x = graph.rng.standard_normal(shape).astype(np.float32)
    outputs = sorted({last, *draw(st.lists(st.sampled_from(sorted(graph.shapes)), max_size=2))})
    outputs = [name for name in outputs if name != "x"] or [last]
    return model_of(graph.nodes, {"x": x}, outputs, graph.weights), {"x": x}


def scale_of(model, inputs):
    return max(1.0, *(float(np.abs(value).max(initial=0)) for value in run(model, inputs)))


@settings(max_examples=150, deadline=None)
@given(graphs())
def test_the_rewritten_graph_gives_the_same_numbers(case):
    model, inputs = case
    changed = check(model, inputs, rtol=1e-3, atol=1e-4 * scale_of(model, inputs))
    assert unsupported(changed) == []
    assert [v.name for v in changed.graph.output] == [v.name for v in model.graph.output]


@settings(max_examples=40, deadline=None)
@given(graphs())
def test_a_rewritten_graph_is_settled(case):
    model, inputs = case
    changed = check(model, inputs, rtol=1e-3, atol=1e-4 * scale_of(model, inputs))
    operators = [node.op_type for node in changed.graph.node]
    assert [node.op_type for node in rewrite(changed).graph.node] == operators
