"""Pow: TVM has it for floats of one type, as a call for each element."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from tunebank.model.rewrite.graph import Graph
from tunebank.model.rewrite.replacement import Replacement

_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16})


def open_pow(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """x² → x · x, x³ → x · x · x, √x; integers, and mixed types, in floating point."""
    x, y = node.input
    kind, exponent_kind = graph.dtype(x), graph.dtype(y)
    exponent = graph.constant(y)
    single = exponent is not None and exponent.size == 1 and _is_free_of_shape(x, y, graph)
    if exponent is not None and single and _as_products(node, float(exponent.item()), kind, new):
        return True
    if kind == exponent_kind and kind in _FLOATS:
        return False
    if kind not in _FLOATS:
        # Exact up to 2^53, as ONNX Runtime is, which goes through `double` too.
        power = new.op("Pow", *(new.cast(name, TensorProto.DOUBLE) for name in (x, y)))
        new.cast(power, kind, out=node.output[0])
    else:
        new.op("Pow", x, new.cast(y, kind), out=node.output[0])
    return True


def _is_free_of_shape(x: str, y: str, graph: Graph) -> bool:
    """Whether the exponent adds no dimension to the result."""
    base, exponent = graph.rank(x), graph.rank(y)
    return base is not None and exponent is not None and exponent <= base


def _as_products(node: onnx.NodeProto, exponent: float, kind: int, new: Replacement) -> bool:
    x, out = node.input[0], node.output[0]
    if exponent == 1:
        new.identity(x, out)
    elif exponent == 2:
        new.op("Mul", x, x, out=out)
    elif exponent == 3:
        new.op("Mul", new.op("Mul", x, x), x, out=out)
    elif exponent == 0.5 and kind in _FLOATS:
        new.op("Sqrt", x, out=out)
    else:
        return False
    return True


def reduce_bools(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """ReduceMax and ReduceMin of truth values, by way of uint8."""
    if graph.dtype(node.input[0]) != TensorProto.BOOL:
        return False
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    number = new.cast(node.input[0], TensorProto.UINT8)
    result = new.op(node.op_type, number, *node.input[1:], **attributes)
    new.cast(result, TensorProto.BOOL, out=node.output[0])
    return True


def reduce_integers(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """ReduceMean and ReduceL2 of integers: a quotient of integers, and a root in `double`."""
    kind = graph.dtype(node.input[0])
    if kind in _FLOATS or kind == 0:
        return False
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "ReduceL2":
        wide = new.cast(node.input[0], TensorProto.DOUBLE)
        norm = new.op("ReduceL2", wide, *node.input[1:], **attributes)
        new.cast(norm, kind, out=node.output[0])
        return True
    shape, result = graph.shape(node.input[0]), graph.shape(node.output[0])
    if shape is None or result is None or 0 in result:
        return False
    count = int(np.prod(shape) // np.prod(result))
    keepdims = int(attributes.get("keepdims", 1))
    total = _summed(node, attributes, keepdims, graph, new)
    new.op("Div", total, new.scalar(count, kind), out=node.output[0])
    return True


def _summed(
    node: onnx.NodeProto, attributes: dict[str, Any], keepdims: int, graph: Graph, new: Replacement
) -> str:
    """ReduceSum over the axes of another reduction."""
    if len(node.input) > 1 and node.input[1]:
        skips = attributes.get("noop_with_empty_axes")
        inputs = node.input[:2]
        return new.op("ReduceSum", *inputs, keepdims=keepdims, noop_with_empty_axes=skips)
    rank = graph.rank(node.input[0]) or 0
    axes = attributes.get("axes", list(range(rank)))
    return new.reduce("ReduceSum", node.input[0], axes, keepdims=bool(keepdims))


_OF_NOTHING = {
    "ReduceSum": 0.0,
    "ReduceSumSquare": 0.0,
    "ReduceL1": 0.0,
    "ReduceL2": 0.0,
    "ReduceProd": 1.0,
    "ReduceMax": -np.inf,
    "ReduceMin": np.inf,
    "ReduceLogSum": -np.inf,
    "ReduceLogSumExp": -np.inf,
}


def reduce_nothing(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """A reduction over no elements gives its neutral element; TVM leaves memory as it is."""
    shape, result = graph.shape(node.input[0]), graph.shape(node.output[0])
    if shape is None or result is None or 0 not in shape or 0 in result:
        return False
    kind = graph.dtype(node.input[0])
    value = _OF_NOTHING.get(node.op_type)
    if value is None or (np.isinf(value) and kind not in _FLOATS):
        return False
    new.op("Expand", new.scalar(value, kind), new.ints(result), out=node.output[0])
    return True
