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
