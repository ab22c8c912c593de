"""Quantised operators in terms of floating-point ones on the same integers.

    y = QLinearConv(x, w)   →   QuantizeLinear(Conv(x - zx, w - zw) · (sx·sw / sy), 1, zy)

The convolution is of integers held in float32. Their products are at most 2^16, so that sums of
some hundreds of them are exact, and larger ones as near as float32 is: then the one rounding, half
to even, comes out as in integer arithmetic. To dequantise first and multiply afterwards would put
a rounding into every factor. It also runs on the schedules for float32, which are the good ones.

Where the integer sums themselves are asked for (ConvInteger), they are computed in int32.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from tunebank.model.rewrite.graph import Graph, attributes_of
from tunebank.model.rewrite.replacement import Replacement

_EXACT = 1 << 24  # float32 holds all integers up to here
_LARGEST = 255 * 255  # product of two numbers of 8 bits less their zero points

_BYTES = frozenset({TensorProto.UINT8, TensorProto.INT8})


def lower_qlinear_conv(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """QLinearConv(x, sx, zx, w, sw, zw, sy, zy, b): w (M, C, …), sw and zw of extent 1 or M."""
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = node.input[:8]
    attributes = attributes_of(node)
    rank = graph.rank(w)
    if rank is None or attributes.pop("channels_last", 0):
        return False
    per_channel = [-1] + [1] * (rank - 1)
    inputs = [
        _integers(x, x_zero, graph, new),
        _integers(w, w_zero, graph, new, shape=per_channel),
    ]
    if len(node.input) > 8 and node.input[8]:
        inputs.append(new.cast(node.input[8], TensorProto.FLOAT))
    total = new.op("Conv", *inputs, **attributes)
    scale = new.op("Div", new.op("Mul", x_scale, w_scale), y_scale)
    if graph.elements(w_scale) != 1:
        scale = new.reshape(scale, per_channel[:-1])  # channels of (N, M, …)
    quantize(new.op("Mul", total, scale), y_zero, node.output[0], new)
    return True


def lower_qlinear_matmul(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """QLinearMatMul(a, sa, za, b, sb, zb, sy, zy): a by rows, b by columns, y as a whole."""
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = node.input
    if graph.dtype(a) not in _BYTES or graph.dtype(b) not in _BYTES:
        return False
    if graph.dtype(y_scale) != TensorProto.FLOAT or graph.elements(y_zero) != 1:
        return False
    product = new.op(
        "MatMul",
        _integers(a, a_zero, graph, new, shape=_rows(a_zero, graph)),
        _integers(b, b_zero, graph, new),
    )
    rows = _rows(a_scale, graph)
    a_scale = new.reshape(a_scale, rows) if rows else a_scale
    scale = new.op("Div", new.op("Mul", a_scale, b_scale), y_scale)
    quantize(new.op("Mul", product, scale), y_zero, node.output[0], new)
    return True


def lower_conv_integer(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """ConvInteger(x, w, zx, zw): sums of integers in int32, or in float32 if that is wanted."""
    x, w, x_zero, w_zero = (*node.input, "", "")[:4]
    shape = graph.shape(w)
    if shape is None:
        return False
    per_channel = [-1] + [1] * (len(shape) - 1)
    kind, followers = _kind_of_sums(node, int(np.prod(shape[1:])), graph)
    total = new.op(
        "Conv",
        _integers(x, x_zero, graph, new, kind=kind),
        _integers(w, w_zero, graph, new, kind=kind, shape=per_channel),
        **attributes_of(node),
    )
    _as_int32(total, kind, followers, node, graph, new)
    return True


def lower_matmul_integer(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """MatMulInteger(a, b, za, zb) in float32 where it is exact, or turned to float32 anyway."""
    a, b, a_zero, b_zero = (*node.input, "", "")[:4]
    shape = graph.shape(b)
    if shape is None:
        return False
    kind, followers = _kind_of_sums(node, shape[-2 if len(shape) > 1 else 0], graph)
    if kind != TensorProto.FLOAT:
        return False  # TVM has it in int32
    product = new.op(
        "MatMul",
        _integers(a, a_zero, graph, new, shape=_rows(a_zero, graph)),
        _integers(b, b_zero, graph, new),
    )
    _as_int32(product, kind, followers, node, graph, new)
    return True


def lower_dynamic_quantize(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """DynamicQuantizeLinear; TVM's divides by zero where all of x is zero."""
    zero, most = new.constant(np.float32(0)), new.constant(np.float32(255))
    rank = graph.rank(node.input[0])
    if rank is None:
        return False
    axes = list(range(rank))
    low = new.op("Min", new.reduce("ReduceMin", node.input[0], axes, keepdims=False), zero)
    high = new.op("Max", new.reduce("ReduceMax", node.input[0], axes, keepdims=False), zero)
    scale = new.op("Div", new.op("Sub", high, low), most)
    some = new.op("Greater", scale, zero)
    scale = new.op("Where", some, scale, new.constant(np.float32(1)), out=_named(node, 1, new))
    start = new.clip(new.op("Sub", zero, new.op("Div", low, scale)), 0, 255)
    point = new.cast(new.op("Round", start), TensorProto.UINT8, out=_named(node, 2, new))
    new.op("QuantizeLinear", node.input[0], scale, point, out=node.output[0])
    return True


def lower_matmul_integer_to_float(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """com.microsoft MatMulIntegerToFloat(a, b, sa, sb, za, zb, bias)."""
    a, b, a_scale, b_scale, a_zero, b_zero, bias = (*node.input, "", "", "")[:7]
    product = new.op("MatMul", _integers(a, a_zero, graph, new), _integers(b, b_zero, graph, new))
    _scaled(product, new.op("Mul", a_scale, b_scale), bias, node.output[0], new)
    return True


def lower_dynamic_quantize_matmul(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """com.microsoft DynamicQuantizeMatMul(a, b, sb, zb, bias): a is quantised as it comes."""
    a, b, b_scale, b_zero, bias = (*node.input, "", "")[:5]
    quantized, a_scale, a_zero = new.op_many("DynamicQuantizeLinear", a, outputs=3)
    product = new.op(
        "MatMul", _integers(quantized, a_zero, graph, new), _integers(b, b_zero, graph, new)
    )
    _scaled(product, new.op("Mul", a_scale, b_scale), bias, node.output[0], new)
    return True


def _scaled(product: str, scale: str, bias: str, out: str, new: Replacement) -> None:
    if bias:
        new.op("Add", new.op("Mul", product, scale), bias, out=out)
    else:
        new.op("Mul", product, scale, out=out)


def _named(node: onnx.NodeProto, index: int, new: Replacement) -> str | None:
    return node.output[index] if len(node.output) > index and node.output[index] else None


def _integers(
    x: str,
    zero: str,
    graph: Graph,
    new: Replacement,
    *,
    kind: int = TensorProto.FLOAT,
    shape: list[int] | None = None,
) -> str:
    """A quantised value less its zero point; the latter in another shape if it isn't single."""
    value = new.cast(x, kind)
    known = graph.constant(zero) if zero else np.zeros(1)
    if known is not None and not known.any():
        return value
    point = new.cast(zero, kind)
    if shape is not None and graph.elements(zero) != 1:
        point = new.reshape(point, shape)
    return new.op("Sub", value, point)


def _rows(name: str, graph: Graph) -> list[int] | None:
    """The shape in which a scale or zero point stands for rows: one for each is a column."""
    shape = graph.shape(name) if name else None
    return [-1, 1] if shape is not None and len(shape) == 1 and shape[0] != 1 else None


def quantize(total: str, zero: str, out: str, new: Replacement) -> None:
    """Rounds what is in units of the result already to integers around a zero point."""
    new.op("QuantizeLinear", total, new.constant(np.float32(1)), zero, out=out)


def _kind_of_sums(
    node: onnx.NodeProto, terms: int, graph: Graph
) -> tuple[int, list[onnx.NodeProto]]:
    """In which type to sum so many products; and the casts to float32, if nothing else follows."""
    followers = graph.consumers(node.output[0])
    casts = [
        follower
        for follower in followers
        if follower.op_type == "Cast" and attributes_of(follower)["to"] == TensorProto.FLOAT
    ]
    only_casts = bool(casts) and len(casts) == graph.uses(node.output[0])
    exact = terms * _LARGEST <= _EXACT
    kind = TensorProto.FLOAT if exact or only_casts else TensorProto.INT32
    return int(kind), casts if only_casts else []


def _as_int32(
    total: str,
    kind: int,
    casts: list[onnx.NodeProto],
    node: onnx.NodeProto,
    graph: Graph,
    new: Replacement,
) -> None:
    """Gives the sums the node's name: as float32 if only casts to it follow, as int32 else."""
    if kind == TensorProto.FLOAT and casts:
        graph.retype(node.output[0])
        new.identity(total, node.output[0])  # what is cast to float32 may be float32 already
    elif kind == TensorProto.FLOAT:
        new.cast(total, TensorProto.INT32, out=node.output[0])
    else:
        new.identity(total, node.output[0])
