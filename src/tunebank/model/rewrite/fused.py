"""Operators that ONNX Runtime's own optimiser writes into files, taken apart again.

They are of the domain com.microsoft. Files that were saved after optimisation have them; TVM knows
a few by name, and gives some of these other meanings.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from tunebank.model.rewrite.graph import Graph, attributes_of
from tunebank.model.rewrite.normalization import rms_norm
from tunebank.model.rewrite.replacement import Replacement

_ACTIVATIONS = {"Relu": (), "Sigmoid": (), "Tanh": (), "LeakyRelu": ("alpha",)}
_ACTIVATIONS |= {"HardSigmoid": ("alpha", "beta")}


def open_gelu(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """Gelu, and BiasGelu(x, bias): x · (1 + erf(x / √2)) / 2."""
    x, kind = node.input[0], graph.dtype(node.input[0])
    if len(node.input) > 1 and node.input[1]:
        x = new.op("Add", x, node.input[1])
    inner = new.op("Erf", new.op("Mul", x, new.scalar(math.sqrt(0.5), kind)))
    whole = new.op("Add", inner, new.scalar(1.0, kind))
    new.op("Mul", new.op("Mul", x, whole), new.scalar(0.5, kind), out=node.output[0])
    return True


def open_fast_gelu(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """FastGelu(x, bias): x · (1 + tanh(√(2/π) · (x + 0.044715 · x³))) / 2."""
    x, kind = node.input[0], graph.dtype(node.input[0])
    if len(node.input) > 1 and node.input[1]:
        x = new.op("Add", x, node.input[1])
    square = new.op("Mul", x, x)
    factor = new.op("Mul", square, new.scalar(0.044715 * math.sqrt(2 / math.pi), kind))
    factor = new.op("Add", factor, new.scalar(math.sqrt(2 / math.pi), kind))
    whole = new.op("Add", new.op("Tanh", new.op("Mul", x, factor)), new.scalar(1.0, kind))
    new.op("Mul", new.op("Mul", x, whole), new.scalar(0.5, kind), out=node.output[0])
    return True


def open_quick_gelu(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """QuickGelu(x): x · sigmoid(alpha · x)."""
    alpha = float(attributes_of(node).get("alpha", 1.702))
    x = node.input[0]
    scaled = new.op("Mul", x, new.scalar(alpha, graph.dtype(x)))
    new.op("Mul", x, new.op("Sigmoid", scaled), out=node.output[0])
    return True


def open_fused_matmul(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """FusedMatMul(a, b): alpha · a · b, either of them transposed in its last two dimensions."""
    attributes = attributes_of(node)
    if attributes.get("transBatchA", 0) or attributes.get("transBatchB", 0):
        return False
    operands = []
    for name, flag in zip(node.input, ("transA", "transB"), strict=True):
        rank = graph.rank(name)
        if rank is None:
            return False
        turned = attributes.get(flag, 0) and rank > 1
        perm = [*range(rank - 2), rank - 1, rank - 2]
        operands.append(new.transpose(name, perm) if turned else name)
    product = new.op("MatMul", *operands)
    alpha = float(attributes.get("alpha", 1.0))
    if alpha != 1.0:
        product = new.op("Mul", product, new.scalar(alpha, graph.dtype(node.input[0])))
    new.identity(product, node.output[0])
    return True


def open_fused_gemm(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """FusedGemm: Gemm and an activation, whose parameters are attributes."""
    attributes = attributes_of(node)
    name = attributes.pop("activation", "")
    given = {key: attributes.pop(f"activation_{key}", None) for key in ("alpha", "beta", "gamma")}
    if name not in _ACTIVATIONS:
        return False
    y = new.op("Gemm", *node.input, **attributes)
    stated = {key: given[key] for key in _ACTIVATIONS[name]}
    new.op(name, y, out=node.output[0], **stated)
    return True


def open_fused_conv(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """FusedConv(x, w, b, z): a convolution, z added, and an activation."""
    attributes = attributes_of(node)
    name = attributes.pop("activation", "")
    parameters = attributes.pop("activation_params", [])
    if name not in ("", "Clip", *_ACTIVATIONS):
        return False
    y = new.op("Conv", *node.input[:3], **attributes)
    if len(node.input) > 3 and node.input[3]:
        y = new.op("Add", y, node.input[3])
    if name == "Clip":
        y = new.clip(y, parameters[0], parameters[1])
    elif name:
        y = new.op(name, y, **dict(zip(_ACTIVATIONS[name], parameters, strict=False)))
    new.identity(y, node.output[0])
    return True


def open_skip_norm(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """SkipLayerNormalization(x, skip, gamma, beta, bias), and the Simplified one without beta.

    The fourth result is what is normalised, x + skip + bias.
    """
    if graph.is_wanted(node, 1) or graph.is_wanted(node, 2):
        return False  # results for training
    simplified = node.op_type == "SkipSimplifiedLayerNormalization"
    inputs = [*node.input, "", ""]
    x, skip, gamma = inputs[:3]
    beta, bias = ("", inputs[3]) if simplified else (inputs[3], inputs[4])
    total = new.op("Add", x, skip)
    if bias:
        total = new.op("Add", total, bias)
    rank = graph.rank(x)
    if rank is None:
        return False
    if graph.is_wanted(node, 3):
        new.identity(total, node.output[3])
    epsilon = float(attributes_of(node).get("epsilon", 1e-12))
    kind = graph.dtype(x)
    if simplified:
        rms_norm(total, gamma, [rank - 1], epsilon, kind, new, node.output[0])
    else:
        layer_norm(total, gamma, beta, rank, epsilon, kind, new, node.output[0])
    return True


def layer_norm(
    x: str,
    gamma: str,
    beta: str,
    rank: int,
    epsilon: float,
    kind: int,
    new: Replacement,
    out: str,
) -> None:
    """Writes a layer normalisation over the last axis; as the operator where there is one."""
    if new.graph.opset >= 17:
        inputs = [x, gamma, beta] if beta else [x, gamma]
        new.op("LayerNormalization", *inputs, out=out, axis=-1, epsilon=epsilon)
        return
    centred = new.op("Sub", x, new.reduce("ReduceMean", x, [rank - 1]))
    variance = new.reduce("ReduceMean", new.op("Mul", centred, centred), [rank - 1])
    root = new.op("Sqrt", new.op("Add", variance, new.scalar(epsilon, kind)))
    scaled = new.op("Mul", new.op("Div", centred, root), gamma)
    new.op("Add", scaled, beta, out=out) if beta else new.identity(scaled, out)


def open_embed_norm(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """EmbedLayerNormalization: embeddings of words, positions and segments, added, normalised.

    Inputs: ids (B, S), segments, tables of words, positions and segments, gamma, beta, mask,
    positions. The second result says how long each sequence is: how many of its mask are 1.
    """
    inputs = [*node.input, "", ""][:9]
    ids, segments, words, positions, segment_table, gamma, beta, mask, places = inputs
    shape = graph.known_shape(ids, node)
    attributes = attributes_of(node)
    total = new.op("Gather", words, ids)
    if places:
        total = new.op("Add", total, new.op("Gather", positions, places))
    else:
        total = new.op("Add", total, new.slice(positions, 0, 0, shape[1]))
    if segments and segment_table:
        total = new.op("Add", total, new.op("Gather", segment_table, segments))
    if graph.is_wanted(node, 2):
        new.identity(total, node.output[2])
    epsilon = float(attributes.get("epsilon", 1e-12))
    layer_norm(total, gamma, beta, 3, epsilon, graph.dtype(words), new, node.output[0])
    if graph.is_wanted(node, 1):
        if mask:
            new.reduce("ReduceSum", mask, [1], keepdims=False, out=node.output[1])
        else:
            new.identity(new.constant(np.zeros(shape[0]), np.int32), node.output[1])
    return True


def unpack_matmul_bits(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """MatMulNBits(a, b, scales, zeros, …, bias) with 4 or 8 bits: b (N, blocks, bytes) unpacked.

    Two numbers of 4 bits lie in a byte, the first in the lower half. Without zeros these are 8.
    """
    attributes = attributes_of(node)
    bits, k, n = (int(attributes.get(name, 4)) for name in ("bits", "K", "N"))
    block = int(attributes["block_size"])
    inputs = [*node.input, "", "", ""][:6]
    a, b, scales, zeros, groups, bias = inputs
    kind = graph.dtype(a)
    if bits not in (4, 8) or groups or (zeros and graph.dtype(zeros) != TensorProto.UINT8):
        return False
    blocks = -(-k // block)
    numbers = _unpacked(b, [n, blocks, block], bits, kind, new)
    if zeros:
        stored = -(-blocks * bits // 8) * 8 // bits
        points = _unpacked(new.reshape(zeros, [n, -1]), [n, stored], bits, kind, new)
        point = new.unsqueeze(new.slice(points, 1, 0, blocks), [2])
    else:
        point = new.scalar(float(1 << (bits - 1)), kind)
    scale = new.reshape(scales, [n, blocks, 1])
    weight = new.op("Mul", new.op("Sub", numbers, point), scale)
    weight = new.slice(new.reshape(weight, [n, blocks * block]), 1, 0, k)
    product = new.op("MatMul", a, new.transpose(weight, [1, 0]))
    new.op("Add", product, bias, out=node.output[0]) if bias else new.identity(
        product, node.output[0]
    )
    return True


def _unpacked(packed: str, shape: list[int], bits: int, kind: int, new: Replacement) -> str:
    """Numbers of so many bits out of bytes, as floats of the given shape."""
    if bits == 8:
        return new.cast(new.reshape(packed, shape), kind)
    wide = new.cast(packed, TensorProto.INT32)
    high = new.op("Div", wide, new.constant(16, np.int32))
    low = new.op("Sub", wide, new.op("Mul", high, new.constant(16, np.int32)))
    axis = len(shape)
    pairs = new.concat([new.unsqueeze(part, [axis]) for part in (low, high)], axis)
    return new.cast(new.reshape(pairs, shape), kind)


def plain_bias_add(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """BiasAdd(x, bias, skip): their sum."""
    new.op("Add", new.op("Add", *node.input[:2]), node.input[2], out=node.output[0])
    return True


def same_in_onnx(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """Operators that mean in com.microsoft what they mean in ONNX."""
    attributes: dict[str, Any] = attributes_of(node)
    new.op(node.op_type, *node.input, out=node.output[0], **attributes)
    return True
