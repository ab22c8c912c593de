"""Convolutions of one image that are added up, as one convolution.

    Conv(x, 3x3) + Conv(x, 3x1) + Conv(x, 1x1) + BatchNormalization(x)     →     Conv(x, 3x3)

Networks that are trained with several branches side by side (RepVGG, arXiv 2101.03697) are the
same functions with one, whose weights are the sum of all: smaller windows are filled up with zeros,
and a channel that is scaled is a window of one tap over that channel alone. Where the common window
has more taps than the windows have together they stay apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper

from tunebank.model.rewrite.graph import DOMAIN, Graph, attributes_of, plain_domain
from tunebank.model.rewrite.replacement import Replacement

_FIRST_PAD_BY_INPUT = 11  # opset
_MOST_CHANNELS = 1024
"""Of an image that is scaled: as a convolution's its weights are the square of that."""

_Branch = tuple[onnx.NodeProto, "_Window"]
"""A Conv, BatchNormalization, or Identity of the image, with its window."""


@dataclass(frozen=True)
class _Window:
    """A convolution's window: by dimension, its taps at the first result, in pixels of the image.

    Attributes:
        low: the first tap; negative in the padding.
        high: the last one.
        end: the padding at the image's end.
        dilations: pixels between taps.
    """

    low: tuple[int, ...]
    high: tuple[int, ...]
    end: tuple[int, ...]
    dilations: tuple[int, ...] = field(repr=False)

    @property
    def taps(self) -> tuple[int, ...]:
        """How many there are, by dimension."""
        ends = zip(self.low, self.high, self.dilations, strict=True)
        return tuple((high - low) // step + 1 for low, high, step in ends)

    def with_room_for(self, other: _Window) -> _Window | None:
        """The window that has the taps of both; None if the other's lie between its own."""
        low, high = tuple(map(min, self.low, other.low)), tuple(map(max, self.high, other.high))
        firsts = zip(self.low, other.low, self.dilations, strict=True)
        if any((one - another) % step for one, another, step in firsts):
            return None
        ends = zip(self.end, self.high, high, strict=True)
        end = tuple(pad + new - old for pad, old, new in ends)
        return _Window(low, high, end, self.dilations)

    def pads_to(self, outer: _Window) -> list[int]:
        """Taps that are missing to a window with room for it: at the starts, then at the ends."""
        starts = zip(self.low, outer.low, self.dilations, strict=True)
        ends = zip(outer.high, self.high, self.dilations, strict=True)
        return [(one - another) // step for pairs in (starts, ends) for one, another, step in pairs]


@dataclass
class _Sum:
    """Branches that become one convolution.

    Attributes:
        branches: the first is a convolution.
        window: has room for all.
    """

    branches: list[_Branch]
    window: _Window

    @property
    def conv(self) -> onnx.NodeProto:
        """One of its convolutions."""
        return self.branches[0][0]

    def takes(self, branch: _Branch) -> bool:
        """Adds a branch, unless there were more taps to compute by it than apart."""
        wider = self.window.with_room_for(branch[1])
        apart = math.prod(self.window.taps) + math.prod(branch[1].taps)
        if wider is None or math.prod(wider.taps) > apart:
            return False
        self.branches.append(branch)
        self.window = wider
        return True


def add_up_convs(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """The last Add of a sum: of its convolutions, those of one image become one."""
    result = node.output[0]
    if graph.opset < _FIRST_PAD_BY_INPUT or graph.uses(result) == 0 or _is_term(node, graph):
        return False
    terms = list(_terms(node, graph))
    sums = [one for one in _sums(terms, graph) if len(one.branches) > 1]
    if not sums:
        return False
    gone = {branch.output[0] for one in sums for branch, _ in one.branches}
    parts = [_as_one(one, graph, new) for one in sums]
    parts += [name for name in terms if name not in gone]
    new.sum(parts, out=result)
    return True


def _is_term(node: onnx.NodeProto, graph: Graph) -> bool:
    """Whether the result of an Add is nothing but a term of another one."""
    consumers = graph.consumers(node.output[0])
    if graph.uses(node.output[0]) != 1 or [one.op_type for one in consumers] != ["Add"]:
        return False
    return graph.shape(node.output[0]) == graph.shape(consumers[0].output[0])


def _terms(node: onnx.NodeProto, graph: Graph) -> Iterator[str]:
    for name in node.input:
        inner = graph.producer(name)
        if inner is not None and inner.op_type == "Add" and _is_term(inner, graph):
            yield from _terms(inner, graph)
        else:
            yield name


def _sums(terms: Sequence[str], graph: Graph) -> list[_Sum]:
    """The convolutions among the terms, those that become one together, and what joins them."""
    groups: dict[tuple[object, ...], list[_Branch]] = {}
    for name in terms:
        conv = graph.producer(name)
        if conv is not None and (window := _window(conv, graph)) is not None:
            groups.setdefault(_alike(conv, window, graph), []).append((conv, window))
    sums: list[_Sum] = []
    for group in groups.values():
        own: list[_Sum] = []
        for branch in sorted(group, key=lambda branch: -math.prod(branch[1].taps)):
            if not any(one.takes(branch) for one in own):
                own.append(_Sum([branch], branch[1]))
        sums.extend(own)
    for name in terms:
        if terms.count(name) == 1:
            _join(name, sums, graph)
    return sums


def _join(name: str, sums: Sequence[_Sum], graph: Graph) -> None:
    """Adds a term that is a sum's image, scaled or not, to that sum."""
    for one in sums:
        branch = _scaling(name, one, graph)
        if branch is not None and one.takes(branch):
            return


def _scaling(name: str, one: _Sum, graph: Graph) -> _Branch | None:
    """A term that is the sum's image, each channel scaled or as it is; None if it is not."""
    image, steps = one.conv.input[0], attributes_of(one.conv).get("strides", [])
    shape = graph.shape(image)
    if shape is None or shape != graph.shape(one.conv.output[0]) or shape[1] > _MOST_CHANNELS:
        return None
    if any(step != 1 for step in steps) or graph.dtype(image) != onnx.TensorProto.FLOAT:
        return None
    dims = len(shape) - 2
    centre = _Window((0,) * dims, (0,) * dims, (0,) * dims, one.window.dilations)
    if name == image:  # of a mere residual a kernel's last step does as well
        is_one_of_many = len(one.branches) > 1
        return (helper.make_node("Identity", [image], [name]), centre) if is_one_of_many else None
    norm = graph.producer(name)
    if norm is None or norm.op_type != "BatchNormalization" or norm.input[0] != image:
        return None
    is_plain = graph.uses(name) == 1 and all(map(graph.is_initializer, norm.input[1:]))
    return (norm, centre) if is_plain else None


def _window(conv: onnx.NodeProto, graph: Graph) -> _Window | None:
    """The window of a convolution whose result is used once; None of other nodes."""
    if conv.op_type != "Conv" or plain_domain(conv) != DOMAIN or graph.uses(conv.output[0]) != 1:
        return None
    attributes, weight = attributes_of(conv), graph.shape(conv.input[1])
    if weight is None or not all(graph.is_initializer(name) for name in conv.input[1:] if name):
        return None
    if attributes.get("auto_pad", "NOTSET") != "NOTSET":
        return None
    extents = weight[2:]
    dilations = tuple(attributes.get("dilations", [1] * len(extents)))
    pads = attributes.get("pads", [0] * 2 * len(extents))
    low = tuple(-pad for pad in pads[: len(extents)])
    reaches = zip(low, extents, dilations, strict=True)
    high = tuple(first + (extent - 1) * step for first, extent, step in reaches)
    return _Window(low, high, tuple(pads[len(extents) :]), dilations)


def _alike(conv: onnx.NodeProto, window: _Window, graph: Graph) -> tuple[object, ...]:
    """Equal for convolutions that one can stand for, as far as windows allow."""
    attributes, shape = attributes_of(conv), graph.shape(conv.output[0])
    strides = tuple(attributes.get("strides", [1] * len(window.low)))
    return conv.input[0], shape, attributes.get("group", 1), strides, window.dilations


def _as_one(whole: _Sum, graph: Graph, new: Replacement) -> str:
    weights: list[str] = []
    biases: list[str] = []
    for branch, window in whole.branches:
        weight, *bias = _weights(branch, whole.conv, graph, new)
        pads = window.pads_to(whole.window)
        half = len(pads) // 2
        if any(pads):
            weight = new.op("Pad", weight, new.ints([0, 0, *pads[:half], 0, 0, *pads[half:]]))
        weights.append(weight)
        biases.extend(bias)
    attributes = attributes_of(whole.conv)
    attributes["kernel_shape"] = list(whole.window.taps)
    attributes["pads"] = [*(-low for low in whole.window.low), *whole.window.end]
    inputs = [new.sum(part) for part in (weights, biases) if part]
    return new.op("Conv", whole.conv.input[0], *inputs, **attributes)


def _weights(
    branch: onnx.NodeProto, conv: onnx.NodeProto, graph: Graph, new: Replacement
) -> list[str]:
    """Weight and, if there is one, bias of a branch as a convolution like another one."""
    if branch.op_type == "Conv":
        return [name for name in branch.input[1:] if name]
    shape = graph.known_shape(conv.input[1], conv)
    channels, own = shape[:2]
    each = np.tile(np.eye(own, dtype=np.float32), (channels // own, 1))
    weight = new.constant(each.reshape(channels, own, *[1] * len(shape[2:])))
    if branch.op_type == "Identity":
        return [weight]
    scale, shift, mean, variance = branch.input[1:]
    epsilon = new.scalar(float(attributes_of(branch).get("epsilon", 1e-5)), graph.dtype(scale))
    scale = new.op("Div", scale, new.op("Sqrt", new.op("Add", variance, epsilon)))
    column = new.reshape(scale, [channels, *[1] * (len(shape) - 1)])
    shift = new.op("Sub", shift, new.op("Mul", mean, scale))
    return [new.op("Mul", weight, column), shift]
