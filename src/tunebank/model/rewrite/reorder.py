"""Operators that only move values, written with those that TVM moves values by."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from tunebank.model.rewrite.graph import Graph, attributes_of
from tunebank.model.rewrite.replacement import Replacement


def gather_reversed(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """ReverseSequence(x, lengths): entry t of a sequence comes from length - 1 - t."""
    attributes = attributes_of(node)
    time, batch = int(attributes.get("time_axis", 0)), int(attributes.get("batch_axis", 1))
    shape = graph.known_shape(node.input[0], node)
    column = [1] * len(shape)
    column[time] = shape[time]
    steps = new.constant(np.arange(shape[time]).reshape(column), np.int64)
    row = [1] * len(shape)
    row[batch] = shape[batch]
    lengths = new.reshape(new.cast(node.input[1], TensorProto.INT64), row)
    turned = new.op("Sub", new.op("Sub", lengths, new.constant(1, np.int64)), steps)
    indices = new.op("Where", new.op("Less", steps, lengths), turned, steps)
    indices = new.op("Expand", indices, new.ints(shape))
    new.op("GatherElements", node.input[0], indices, axis=time, out=node.output[0])
    return True


def clamp_slice(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """Slice with constant bounds: these within the extents, as far as ONNX reads them so.

    Exporters write the largest integer for "to the end". Going backwards a start before the first
    entry means the first one, which TVM takes for nothing.
    """
    if graph.opset < 10:
        return False
    shape = graph.shape(node.input[0])
    names = [*node.input[1:], "", ""][:4]
    values = [graph.constant(name) if name else None for name in names]
    if shape is None or values[0] is None or values[1] is None:
        return False
    starts, ends = values[0].tolist(), values[1].tolist()
    if any(name and value is None for name, value in zip(names[2:], values[2:], strict=True)):
        return False
    axes = list(range(len(starts))) if values[2] is None else values[2].tolist()
    steps = [1] * len(starts) if values[3] is None else values[3].tolist()
    bounds = [
        _clamped(start, end, step, shape[axis])
        for start, end, step, axis in zip(starts, ends, steps, axes, strict=True)
    ]
    if bounds == list(zip(starts, ends, strict=True)):
        return False
    lists = [[start for start, _ in bounds], [end for _, end in bounds], axes, steps]
    new.op("Slice", node.input[0], *map(new.ints, lists), out=node.output[0])
    return True


def _clamped(start: int, end: int, step: int, extent: int) -> tuple[int, int]:
    """The bounds of a slice in their one form; an end before the first entry is -extent - 1."""
    start += extent if start < 0 else 0
    end += extent if end < 0 else 0
    if step > 0:
        return min(max(start, 0), extent), min(max(end, 0), extent)
    start, end = min(max(start, 0), extent - 1), min(max(end, -1), extent - 1)
    return start, end if end >= 0 else -extent - 1


def crop_before_wrap(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """Pad in mode `wrap` that cuts off, too: what is left is wrapped; TVM wraps what was there."""
    attributes = attributes_of(node)
    rank = graph.rank(node.input[0])
    pads = graph.constant(node.input[1]) if len(node.input) > 1 else None
    axes = graph.constant(node.input[3]) if len(node.input) > 3 and node.input[3] else None
    if attributes.get("mode") != "wrap" or pads is None or rank is None or not (pads < 0).any():
        return False
    if len(node.input) > 3 and node.input[3] and axes is None:
        return False
    numbers = list(range(rank)) if axes is None else [int(axis) % rank for axis in axes]
    shape = graph.known_shape(node.input[0], node)
    x = node.input[0]
    for index, axis in enumerate(numbers):
        start, end = min(int(pads[index]), 0), min(int(pads[len(numbers) + index]), 0)
        if start or end:
            x = new.slice(x, axis, -start, shape[axis] + end)
    positive = new.ints(np.maximum(pads, 0).tolist())
    new.op("Pad", x, positive, *node.input[2:], out=node.output[0], **attributes)
    return True


def scatter_by_position(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """ScatterElements with fewer indices than data, as ScatterND: TVM counts these wrongly.

    The place of an entry is its own place, with the index along the axis.
    """
    shape, indices = graph.shape(node.input[0]), graph.shape(node.input[1])
    if shape is None or indices is None:
        return False
    attributes = attributes_of(node)
    axis = int(attributes.get("axis", 0)) % len(shape)
    if all(shape[i] == indices[i] for i in range(len(shape)) if i != axis):
        return False
    places = []
    for number in range(len(shape)):
        if number == axis:
            index = node.input[1]
            if graph.dtype(index) != TensorProto.INT64:
                index = new.cast(index, TensorProto.INT64)
        else:
            column = [1] * len(indices)
            column[number] = indices[number]
            grid = np.arange(indices[number]).reshape(column)
            index = new.constant(np.broadcast_to(grid, indices), np.int64)
        places.append(new.unsqueeze(index, [len(indices)]))
    where = new.concat(places, len(indices))
    reduction = attributes.get("reduction")
    data, updates = node.input[0], node.input[2]
    new.op("ScatterND", data, where, updates, out=node.output[0], reduction=reduction)
    return True


def column_space_to_depth(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """SpaceToDepth in mode CRD: the block's places behind the channel; TVM has DCR alone."""
    attributes = attributes_of(node)
    if attributes.get("mode", "DCR") != "CRD":
        return False
    n, c, h, w = graph.known_shape(node.input[0], node)
    block = int(attributes["blocksize"])
    parts = new.reshape(node.input[0], [n, c, h // block, block, w // block, block])
    turned = new.transpose(parts, [0, 1, 3, 5, 2, 4])
    shape = [n, c * block * block, h // block, w // block]
    new.reshape(turned, shape, out=node.output[0])
    return True
