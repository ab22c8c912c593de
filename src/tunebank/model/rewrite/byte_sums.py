"""Quantised layers as sums of products of bytes, for CPUs with an instruction for them.

    Conv(Dequantize(x), Dequantize(w), b)   →   sum(u * w) * (sx * sw) + b

The instruction multiplies unsigned bytes by signed ones and sums in int32: u is x, or x + 128 where
x is signed. What is left of x's zero point,

    sum((u - z) * w)  =  sum(u * w) - z * sum(w),

is a constant for each result channel. Padding is done beforehand, by z: a padded zero is u = z.
The sums are exact; rounding begins where they are scaled. The instruction adds up four products:
channels of x, as of an image's three colours, and columns of w are filled up with zeros of w.

Bytes are widened to int32 here, as ONNX has it; `model/narrow.py` has them read as bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from tunebank.model.rewrite.engine import Rules
from tunebank.model.rewrite.graph import DOMAIN, MICROSOFT, Graph, attributes_of
from tunebank.model.rewrite.quantized import quantize
from tunebank.model.rewrite.replacement import Replacement

_DEPTH = 4
"""Products that the instruction adds up."""
_LANES = 16
"""Sums that it makes side by side."""
_MANY = 64
"""Columns to which a few more may be added."""
_MOST_TERMS = (1 << 31) // (255 * 128)
"""Products whose sum int32 holds whatever they are."""
_SIGNED_OFFSET = 128


@dataclass(frozen=True)
class _Quantised:
    """Bytes, and the numbers that they stand for: (value - zero) * scale."""

    value: str
    scale: str
    zero: str = ""
    axis: int = 1


def sum_conv(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """Conv of dequantised factors."""
    x, w = (_dequantised(name, graph) for name in node.input[:2])
    if x is None or w is None or not _is_scaled_along(w, (0,), graph):
        return False
    sums = _conv(x, w, attributes_of(node), graph, new)
    if sums is None:
        return False
    scale = _of_channels(new.op("Mul", x.scale, w.scale), w, graph, new)
    scaled = _scaled(sums, scale, new)
    bias = node.input[2] if len(node.input) > 2 else ""
    _finish(scaled, new.reshape(bias, [-1, 1, 1]) if bias else "", node, new)
    return True


def sum_product(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """MatMul, or Gemm without coefficients, of dequantised factors: of x and a weight."""
    x, w = (_dequantised(name, graph) for name in node.input[:2])
    attributes = attributes_of(node)
    turned = bool(attributes.get("transB", 0))
    is_plain = all(attributes.get(name, 1.0) == 1.0 for name in ("alpha", "beta"))
    if x is None or w is None or not is_plain or attributes.get("transA", 0):
        return False
    if not _is_scaled_along(w, (0, -2) if turned else (1, -1), graph):
        return False
    sums = _matmul(x, w, graph, new, turned=turned)
    if sums is None:
        return False
    scaled = _scaled(sums, new.op("Mul", x.scale, w.scale), new)
    _finish(scaled, node.input[2] if len(node.input) > 2 else "", node, new)
    return True


def sum_qlinear_conv(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """QLinearConv(x, sx, zx, w, sw, zw, sy, zy, b): b is int32, in units of sx * sw."""
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = node.input[:8]
    attributes = attributes_of(node)
    if attributes.pop("channels_last", 0):
        return False
    factors = _Quantised(x, x_scale, x_zero), _Quantised(w, w_scale, w_zero, 0)
    sums = _conv(*factors, attributes, graph, new)
    if sums is None:
        return False
    if len(node.input) > 8 and node.input[8]:
        sums = new.op("Add", sums, new.reshape(node.input[8], [-1, 1, 1]))
    scale = new.op("Div", new.op("Mul", x_scale, w_scale), y_scale)
    total = _scaled(sums, _of_channels(scale, factors[1], graph, new), new)
    quantize(total, y_zero, node.output[0], new)
    return True


def sum_qlinear_matmul(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """QLinearMatMul(a, sa, za, b, sb, zb, sy, zy)."""
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = node.input
    if graph.elements(a_scale) != 1 or graph.elements(y_zero) != 1:
        return False
    factors = _Quantised(a, a_scale, a_zero), _Quantised(b, b_scale, b_zero)
    sums = _matmul(*factors, graph, new)
    if sums is None:
        return False
    scale = new.op("Div", new.op("Mul", a_scale, b_scale), y_scale)
    quantize(_scaled(sums, scale, new), y_zero, node.output[0], new)
    return True


def sum_integers(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """MatMulInteger(a, b, za, zb)."""
    a, b, a_zero, b_zero = (*node.input, "", "")[:4]
    sums = _matmul(_Quantised(a, "", a_zero), _Quantised(b, "", b_zero), graph, new)
    if sums is None:
        return False
    new.identity(sums, node.output[0])
    return True


def sum_integers_to_float(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """com.microsoft MatMulIntegerToFloat(a, b, sa, sb, za, zb, bias)."""
    a, b, a_scale, b_scale, a_zero, b_zero, bias = (*node.input, "", "", "")[:7]
    if graph.elements(a_scale) != 1:
        return False
    factors = _Quantised(a, a_scale, a_zero), _Quantised(b, b_scale, b_zero)
    sums = _matmul(*factors, graph, new)
    if sums is None:
        return False
    _finish(_scaled(sums, new.op("Mul", a_scale, b_scale), new), bias, node, new)
    return True


def open_dynamic_matmul(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """com.microsoft DynamicQuantizeMatMul(a, b, sb, zb, bias): a is quantised as it comes."""
    a, b, b_scale, b_zero, bias = (*node.input, "", "")[:5]
    quantised, a_scale, a_zero = new.op_many("DynamicQuantizeLinear", a, outputs=3)
    inputs = [quantised, b, a_scale, b_scale, a_zero, b_zero, bias]
    new.op("MatMulIntegerToFloat", *inputs, out=node.output[0], domain=MICROSOFT)
    return True


BYTE_RULES: Rules = {
    (DOMAIN, "Conv"): (sum_conv,),
    (DOMAIN, "MatMul"): (sum_product,),
    (DOMAIN, "Gemm"): (sum_product,),
    (DOMAIN, "QLinearConv"): (sum_qlinear_conv,),
    (DOMAIN, "QLinearMatMul"): (sum_qlinear_matmul,),
    (DOMAIN, "MatMulInteger"): (sum_integers,),
    (MICROSOFT, "QLinearConv"): (sum_qlinear_conv,),
    (MICROSOFT, "MatMulIntegerToFloat"): (sum_integers_to_float,),
    (MICROSOFT, "DynamicQuantizeMatMul"): (open_dynamic_matmul,),
}
"""Tried before the others, for CPUs with the instruction."""


def _dequantised(name: str, graph: Graph) -> _Quantised | None:
    """What a value is the dequantised form of, if it is one of bytes with a float32 scale."""
    node = graph.producer(name)
    if node is None or node.op_type != "DequantizeLinear":
        return None
    attributes = attributes_of(node)
    value, scale, zero = (*node.input, "")[:3]
    if graph.dtype(scale) != TensorProto.FLOAT or attributes.get("block_size", 0):
        return None
    return _Quantised(value, scale, zero, int(attributes.get("axis", 1)))


def _is_scaled_along(w: _Quantised, axes: tuple[int, ...], graph: Graph) -> bool:
    """Whether a weight has one scale, or one for each index on one of these axes."""
    return w.axis in axes or graph.elements(w.scale) == 1


def _conv(
    x: _Quantised, w: _Quantised, attributes: dict[str, Any], graph: Graph, new: Replacement
) -> str | None:
    """The sums of a convolution, int32; None if it is none of this kind.

    w is (M, C, H, W), all of whose channels go together, M whole vectors.
    """
    shape = graph.shape(w.value)
    zero = _known_zero(x, graph)
    if shape is None or len(shape) != 4 or attributes.get("group", 1) != 1 or zero is None:
        return None
    if not _are_bytes(x, w, graph) or shape[0] % _LANES or np.prod(shape[1:]) > _MOST_TERMS:
        return None
    if attributes.pop("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return None
    u, weight, missing = _unsigned(x.value, graph, new), w.value, -shape[1] % _DEPTH
    pads = [int(pad) for pad in attributes.get("pads", [0] * 4)]
    if missing or (zero and any(pads)):
        top, left, bottom, right = pads
        around = new.ints([0, 0, top, left, 0, missing, bottom, right])
        u = new.op("Pad", u, around, new.constant(zero, np.uint8))
        attributes["pads"] = [0] * 4
    if missing:
        weight = new.op("Pad", weight, new.ints([0, 0, 0, 0, 0, missing, 0, 0]))
    wide = new.cast(weight, TensorProto.INT32)
    sums = new.op("Conv", new.cast(u, TensorProto.INT32), wide, **attributes)
    if not zero:
        return sums
    weights = new.reduce("ReduceSum", wide, [1, 2, 3], keepdims=False)
    weights = new.reshape(weights, [-1, 1, 1])
    return new.op("Sub", sums, new.op("Mul", weights, new.constant(zero, np.int32)))


def _matmul(
    x: _Quantised, w: _Quantised, graph: Graph, new: Replacement, *, turned: bool = False
) -> str | None:
    """The sums of a matrix product, int32; None if it is none of this kind.

    w is (K, N), or (N, K) if it is to be turned. The zero point of x may be known later only.
    """
    shape = graph.shape(w.value)
    if shape is None or len(shape) != 2 or not _are_bytes(x, w, graph):
        return None
    terms, columns = shape[::-1] if turned else shape
    is_single = not x.zero or graph.elements(x.zero) == 1
    missing = -columns % _LANES
    if terms % _DEPTH or terms > _MOST_TERMS or (missing and columns < _MANY) or not is_single:
        return None
    u = _unsigned(x.value, graph, new)
    weight = new.transpose(w.value, [1, 0]) if turned else w.value
    if missing:
        weight = new.op("Pad", weight, new.ints([0, 0, 0, missing]))
    wide = new.cast(weight, TensorProto.INT32)
    sums = new.op("MatMul", new.cast(u, TensorProto.INT32), wide)
    if _known_zero(x, graph) != 0:
        weights = new.reduce("ReduceSum", wide, [0], keepdims=False)
        sums = new.op("Sub", sums, new.op("Mul", weights, _offset(x, graph, new)))
    return new.slice(sums, -1, 0, columns) if missing else sums


def _offset(x: _Quantised, graph: Graph, new: Replacement) -> str:
    """The zero point of x in unsigned bytes, as int32."""
    zero = _known_zero(x, graph)
    if zero is not None:
        return new.constant(zero, np.int32)
    offset = new.cast(x.zero, TensorProto.INT32)
    if graph.dtype(x.value) == TensorProto.UINT8:
        return offset
    return new.op("Add", offset, new.constant(_SIGNED_OFFSET, np.int32))


def _are_bytes(x: _Quantised, w: _Quantised, graph: Graph) -> bool:
    """Whether the types are those of the instruction, and w is a constant around zero."""
    kinds = (TensorProto.UINT8, TensorProto.INT8)
    zero = graph.constant(w.zero) if w.zero else np.zeros(1)
    return (
        graph.dtype(x.value) in kinds
        and graph.dtype(w.value) == TensorProto.INT8
        and graph.is_initializer(w.value)
        and zero is not None
        and not zero.any()
        and (not x.scale or graph.elements(x.scale) == 1)
    )


def _known_zero(x: _Quantised, graph: Graph) -> int | None:
    """The zero point of x in unsigned bytes; None if it is not known or not single."""
    known = graph.constant(x.zero) if x.zero else np.zeros(1)
    if known is None or known.size != 1:
        return None
    offset = _SIGNED_OFFSET if graph.dtype(x.value) == TensorProto.INT8 else 0
    return int(known.item()) + offset


def _unsigned(x: str, graph: Graph, new: Replacement) -> str:
    if graph.dtype(x) == TensorProto.UINT8:
        return x
    wide = new.cast(x, TensorProto.INT32)
    moved = new.op("Add", wide, new.constant(_SIGNED_OFFSET, np.int32))
    return new.cast(moved, TensorProto.UINT8)


def _of_channels(scale: str, w: _Quantised, graph: Graph, new: Replacement) -> str:
    """A scale beside results (N, M, H, W): one for each channel stands along M."""
    return scale if graph.elements(w.scale) == 1 else new.reshape(scale, [-1, 1, 1])


def _scaled(sums: str, scale: str, new: Replacement) -> str:
    return new.op("Mul", new.cast(sums, TensorProto.FLOAT), scale)


def _finish(total: str, bias: str, node: onnx.NodeProto, new: Replacement) -> None:
    if bias:
        new.op("Add", total, bias, out=node.output[0])
    else:
        new.identity(total, node.output[0])
