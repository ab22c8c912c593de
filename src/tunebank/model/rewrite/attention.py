"""The attention operators of com.microsoft as matrix products and a softmax.

    softmax(q · kᵀ · scale + mask) · v     q, k, v (B, N, S, d): batch, heads, positions, size

Past keys and values, which are for generating text, are not taken apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from tunebank.model.rewrite.graph import Graph, attributes_of
from tunebank.model.rewrite.replacement import Replacement

_MASKED = -10000.0


@dataclass(frozen=True)
class _Heads:
    """Extents of an attention: batch, heads, positions of queries and keys; how it masks."""

    batch: int
    heads: int
    queries: int
    keys: int
    kind: int
    scale: float | None
    masked: float
    causal: bool


def open_attention(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """Attention(x, weights, bias, mask, past, attention_bias) of com.microsoft.

    One product gives queries, keys and values: weights (H, 3·H), or as `qkv_hidden_sizes` says.
    """
    x, weights, bias, mask, past, added = [*node.input, "", "", "", ""][:6]
    attributes = attributes_of(node)
    outer, inner = graph.shape(x), graph.shape(weights)
    if past or outer is None or inner is None or graph.is_wanted(node, 1):
        return False
    if len(node.input) > 6 or attributes.get("do_rotary", 0):
        return False
    sizes = attributes.get("qkv_hidden_sizes") or [inner[1] // 3] * 3
    heads = _heads(attributes, outer[0], outer[1], outer[1], graph.dtype(x))
    product = new.op("MatMul", x, weights)
    if bias:
        product = new.op("Add", product, bias)
    q, k, v = (_by_head(part, heads, new) for part in new.split(product, 2, sizes))
    masks = _masks(mask, added, heads, graph, new)
    if masks is None:
        return False
    _write(q, k, v, masks, sizes[0] // heads.heads, heads, node.output[0], new)
    return True


def open_multi_head(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """MultiHeadAttention(q, k, v, bias, padding, attention_bias), each (B, S, H)."""
    q, k, v, bias, padding, added = [*node.input, "", "", "", "", ""][:6]
    shapes = [graph.shape(name) for name in (q, k, v)]
    past = any(node.input[6:])
    if past or any(shape is None or len(shape) != 3 for shape in shapes):
        return False
    if graph.is_wanted(node, 1) or graph.is_wanted(node, 2):
        return False
    query, key, value = (tuple(shape or ()) for shape in shapes)
    attributes = attributes_of(node)
    heads = _heads(attributes, query[0], query[1], key[1], graph.dtype(q))
    parts = [q, k, v]
    if bias:
        biases = new.split(bias, 0, [query[2], key[2], value[2]])
        parts = [new.op("Add", *pair) for pair in zip(parts, biases, strict=True)]
    masks = _masks(padding, added, heads, graph, new)
    if masks is None:
        return False
    split = [_by_head(part, heads, new) for part in parts]
    _write(split[0], split[1], split[2], masks, query[2] // heads.heads, heads, node.output[0], new)
    return True


def _heads(attributes: dict[str, float], batch: int, queries: int, keys: int, kind: int) -> _Heads:
    scale = float(attributes.get("scale", 0.0))
    return _Heads(
        batch=batch,
        heads=int(attributes["num_heads"]),
        queries=queries,
        keys=keys,
        kind=kind,
        scale=scale or None,
        masked=float(attributes.get("mask_filter_value", _MASKED)),
        causal=bool(attributes.get("unidirectional", 0)),
    )


def _by_head(x: str, heads: _Heads, new: Replacement) -> str:
    """(B, S, N·d) → (B, N, S, d)."""
    return new.transpose(new.reshape(x, [0, 0, heads.heads, -1]), [0, 2, 1, 3])


def _masks(
    mask: str, added: str, heads: _Heads, graph: Graph, new: Replacement
) -> list[str] | None:
    """What is added to the scores (B, N, S, T); None for a mask of a form that isn't known."""
    found = [added] if added else []
    if heads.causal:
        future = np.triu(np.ones((heads.queries, heads.keys)), 1 + heads.keys - heads.queries)
        found.append(_number(future * np.finfo(np.float32).min, heads, new))
    if not mask:
        return found
    shape = graph.shape(mask)
    allowed: str | None = None
    if shape == (heads.batch, heads.keys):
        allowed = new.unsqueeze(mask, [1, 2])
    elif shape == (heads.batch, heads.queries, heads.keys):
        allowed = new.unsqueeze(mask, [1])
    elif shape == (heads.batch,):  # how long each sequence is
        places = new.constant(np.arange(heads.keys).reshape(1, 1, 1, -1), np.int32)
        lengths = new.reshape(new.cast(mask, TensorProto.INT32), [heads.batch, 1, 1, 1])
        allowed = new.cast(new.op("Less", places, lengths), TensorProto.INT32)
    if allowed is None:
        return None
    shut = new.op("Sub", _number(1.0, heads, new), new.cast(allowed, heads.kind))
    found.append(new.op("Mul", shut, _number(heads.masked, heads, new)))
    return found


def _number(value: object, heads: _Heads, new: Replacement) -> str:
    return new.constant(value, onnx.helper.tensor_dtype_to_np_dtype(heads.kind))


def _write(
    q: str, k: str, v: str, masks: list[str], size: int, heads: _Heads, out: str, new: Replacement
) -> None:
    scale = heads.scale if heads.scale is not None else 1 / math.sqrt(size)
    scores = new.op("MatMul", q, new.transpose(k, [0, 1, 3, 2]))
    scores = new.op("Mul", scores, _number(scale, heads, new))
    for mask in masks:
        scores = new.op("Add", scores, mask)
    mixed = new.op("MatMul", new.softmax(scores, rank=4), v)
    new.reshape(new.transpose(mixed, [0, 2, 1, 3]), [0, 0, -1], out=out)
