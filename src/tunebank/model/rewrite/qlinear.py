"""The quantised operators of com.microsoft: dequantise, compute, quantise.

    y = QLinearAdd(a, b)   →   QuantizeLinear(Add(DequantizeLinear(a), DequantizeLinear(b)))

That is how ONNX Runtime defines them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from tunebank.model.rewrite.graph import Graph, attributes_of
from tunebank.model.rewrite.replacement import Replacement

_BINARY = {"QLinearAdd": "Add", "QLinearMul": "Mul"}
_UNARY = {
    "QLinearLeakyRelu": "LeakyRelu",
    "QLinearSigmoid": "Sigmoid",
    "QLinearAveragePool": "AveragePool",
    "QLinearGlobalAveragePool": "GlobalAveragePool",
    "QLinearReduceMean": "ReduceMean",
    "QLinearSoftmax": "Softmax",
}


def lower_qlinear_binary(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """QLinearAdd and QLinearMul(a, sa, za, b, sb, zb, sy, zy)."""
    inputs = [*node.input, ""][:8]
    a, b = _dequantized(inputs[:3], new), _dequantized(inputs[3:6], new)
    _quantized(new.op(_BINARY[node.op_type], a, b), inputs[6:8], node, graph, new)
    return True


def lower_qlinear_unary(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """QLinearSigmoid and its like(x, sx, zx, sy, zy)."""
    inputs = [*node.input, ""][:5]
    attributes = attributes_of(node)
    if attributes.pop("channels_last", 0) or not _attributes_fit(node, attributes, graph):
        return False
    x = _dequantized(inputs[:3], new)
    if node.op_type == "QLinearReduceMean":
        rank = graph.rank(node.input[0])
        axes = attributes.get("axes", list(range(rank or 0)))
        y = new.reduce("ReduceMean", x, axes, keepdims=bool(attributes.get("keepdims", 1)))
    else:
        y = new.op(_UNARY[node.op_type], x, **attributes)
    _quantized(y, inputs[3:5], node, graph, new)
    return True


def lower_qlinear_concat(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """QLinearConcat(sy, zy, then x, sx, zx for each part)."""
    groups = [node.input[start : start + 3] for start in range(2, len(node.input), 3)]
    parts = [_dequantized(group, new) for group in groups]
    joined = new.op("Concat", *parts, axis=attributes_of(node)["axis"])
    _quantized(joined, node.input[:2], node, graph, new)
    return True


def lower_qlinear_where(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """QLinearWhere(condition, x, sx, zx, y, sy, zy, sz, zz)."""
    x, y = _dequantized(node.input[1:4], new), _dequantized(node.input[4:7], new)
    chosen = new.op("Where", node.input[0], x, y)
    _quantized(chosen, node.input[7:9], node, graph, new)
    return True


def lower_qgemm(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """QGemm(a, sa, za, b, sb, zb, c, sy, zy): c in units of sa·sb; without sy y is float32."""
    inputs = [*node.input, "", "", ""][:9]
    attributes = attributes_of(node)
    a, b = _dequantized(inputs[:3], new), _dequantized(inputs[3:6], new, axis=1)
    if attributes.get("transB", 0):
        b = _dequantized(inputs[3:6], new, axis=0)
    operands = [a, b]
    if inputs[6]:
        unit = new.op("Mul", inputs[1], inputs[4])
        if graph.rank(inputs[6]) == 1 or graph.rank(unit) != 0:
            operands.append(new.op("Mul", new.cast(inputs[6], TensorProto.FLOAT), unit))
        else:
            return False
    y = new.op("Gemm", *operands, **attributes)
    if inputs[7]:
        _quantized(y, inputs[7:9], node, graph, new)
    else:
        new.identity(y, node.output[0])
    return True


def lower_microsoft_quantize(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """QuantizeLinear and DequantizeLinear of com.microsoft are those of ONNX."""
    new.op(node.op_type, *node.input, out=node.output[0], **attributes_of(node))
    return True


def _attributes_fit(node: onnx.NodeProto, attributes: dict[str, Any], graph: Graph) -> bool:
    if node.op_type != "QLinearSoftmax":
        return True
    # The node says by which version of Softmax it goes; the model's may be another.
    return (int(attributes.pop("opset")) >= 13) == (graph.opset >= 13)


def _dequantized(quantized: Any, new: Replacement, *, axis: int | None = None) -> str:
    x, scale, zero = quantized
    return new.op("DequantizeLinear", x, scale, *([zero] if zero else []), axis=axis)


def _quantized(
    y: str, scale_and_zero: Any, node: onnx.NodeProto, graph: Graph, new: Replacement
) -> None:
    scale, zero = scale_and_zero
    if not zero:
        kind = graph.dtype(node.input[0])
        dtype = np.int8 if kind == TensorProto.INT8 else np.uint8
        zero = new.constant(0, dtype)
    new.op("QuantizeLinear", y, scale, zero, out=node.output[0])
