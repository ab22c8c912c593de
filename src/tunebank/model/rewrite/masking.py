"""Small rules for what TVM's importer or its reductions read otherwise than ONNX."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from tunebank.model.rewrite.graph import Graph, attributes_of
from tunebank.model.rewrite.replacement import Replacement


def cast_of_like(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """CastLike(x, y) → Cast(x) to the type of y, which needs no value of y and can be folded."""
    kind = graph.dtype(node.input[1])
    if kind == 0:
        return False
    new.cast(node.input[0], kind, out=node.output[0])
    return True


def listed_axes(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """Squeeze and Unsqueeze whose axis is a single number → a list of one."""
    if graph.opset < 13 or len(node.input) < 2 or graph.rank(node.input[1]) != 0:
        return False
    axis = graph.constant(node.input[1])
    if axis is None:
        return False
    new.op(node.op_type, node.input[0], new.ints([int(axis.item())]), out=node.output[0])
    return True


def all_masked(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """Equal(ReduceMax(x), -∞) → no entry of x is above -∞.

    TVM's maximum starts at the least finite number, so that it is never -∞. Attention asks so
    which rows are masked altogether.
    """
    for number, name in enumerate(node.input):
        bound = graph.constant(name)
        if bound is None or bound.dtype.kind != "f" or not np.isneginf(bound).all():
            continue
        reduction = graph.producer(node.input[1 - number])
        if reduction is None or reduction.op_type != "ReduceMax":
            return False
        x = reduction.input[0]
        above = new.cast(new.op("Greater", x, name), TensorProto.UINT8)
        some = new.op("ReduceMax", above, *reduction.input[1:], **attributes_of(reduction))
        new.op("Equal", some, new.constant(0, np.uint8), out=node.output[0])
        return True
    return False
