"""Normalisation of channels, by operators that go along an image's pixels.

    InstanceNormalization                                each channel is a group by itself
    GroupNormalization                                   neighbouring channels are a group
    Reshape (N, G, -1), InstanceNormalization, Reshape   what exporters make of that

    m = mean of x over the group        v = mean of (x - m)² over the group
    a = scale / sqrt(v + ε)             y = x · a + (bias - m · a)

A mean goes over the pixels of each channel first, then over the channels of a group: so channels
stay last, where convolutions have them. TVM computes the mean twice, and in rows of pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx

from tunebank.model.rewrite.graph import Graph, attributes_of
from tunebank.model.rewrite.replacement import Replacement

_HEIGHT = 2  # where a dimension of extent 1 makes (N, C, L) an image
_EPSILON = 1e-5  # of both operators, where none is given


def open_instance_norm(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """InstanceNormalization; of groups of channels, where its input is a reshaped image."""
    x, scale, bias = node.input
    shape = graph.shape(x)
    if shape is None or len(shape) < 3:
        return False
    image = _image_of(x, shape, graph)
    y = _normalised(image or x, shape[1], scale, bias, node, graph, new)
    if image:
        new.reshape(y, shape, out=node.output[0])
    else:
        new.identity(y, node.output[0])
    return True


def open_group_norm(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """GroupNormalization; before version 21 its scale and bias were those of groups."""
    x, scale, bias = node.input
    rank = graph.rank(x)
    if rank is None or rank < 3 or graph.shape(x) is None:
        return False
    groups = int(attributes_of(node)["num_groups"])
    new.identity(_normalised(x, groups, scale, bias, node, graph, new), node.output[0])
    return True


def skip_reshape_back(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """Reshape(Reshape(x)) → x, where it has the shape of x."""
    before = graph.producer(node.input[0])
    if before is None or before.op_type != "Reshape":
        return False
    shape = graph.shape(node.output[0])
    if shape is None or shape != graph.shape(before.input[0]):
        return False
    new.identity(before.input[0], node.output[0])
    return True


def _image_of(x: str, shape: Sequence[int], graph: Graph) -> str:
    """The image (N, C, ...) that was reshaped to (N, G, -1); "" if there is none."""
    before = graph.producer(x)
    if before is None or before.op_type != "Reshape" or len(shape) != 3:
        return ""
    image = graph.shape(before.input[0])
    if image is None or len(image) < 3 or image[0] != shape[0] or image[1] % shape[1]:
        return ""
    return str(before.input[0])


def _normalised(
    x: str,
    groups: int,
    scale: str,
    bias: str,
    node: onnx.NodeProto,
    graph: Graph,
    new: Replacement,
) -> str:
    """An image (N, C, ...) normalised in groups; scale and bias are of channels or of groups."""
    shape, kind = graph.known_shape(x, node), graph.dtype(x)
    is_line = len(shape) == 3
    if is_line:
        x = new.unsqueeze(x, [_HEIGHT])
    rank, each = max(len(shape), 4), shape[1] // groups
    column = [shape[1], *[1] * (rank - 2)]

    def mean(value: str) -> str:
        # Sums, since TVM fuses what is before a sum into it, and all that follows into a mean.
        total = new.reduce("ReduceSum", value, range(2, rank))
        if groups == 1:
            total = new.reduce("ReduceSum", total, [1])
        elif each > 1:
            total = new.reshape(total, [shape[0], groups, each])
            total = new.reduce("ReduceSum", total, [2])
            total = new.op("Expand", total, new.ints([shape[0], groups, each]))
            total = new.reshape(total, [shape[0], *column])
        return new.op("Mul", total, new.scalar(1 / (each * math.prod(shape[2:])), kind))

    def of_channels(weight: str) -> str:
        if each > 1 and graph.known_shape(weight, node) == (groups,):
            weight = new.op("Expand", new.unsqueeze(weight, [1]), new.ints([groups, each]))
        return new.reshape(weight, column)

    epsilon = new.scalar(float(attributes_of(node).get("epsilon", _EPSILON)), kind)
    middle = mean(x)
    apart = new.op("Sub", x, middle)
    deviation = new.op("Sqrt", new.op("Add", mean(new.op("Mul", apart, apart)), epsilon))
    factor = new.op("Div", of_channels(scale), deviation)
    shift = new.op("Sub", of_channels(bias), new.op("Mul", middle, factor))
    y = new.op("Add", new.op("Mul", x, factor), shift)
    return new.squeeze(y, [_HEIGHT]) if is_line else y
