"""ONNX Runtime's fused operators taken apart, against ONNX Runtime's own."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper
from rewrite_cases import check, model_of, operators

B, S, H, N = 2, 5, 8, 2
rng = np.random.default_rng(7)


def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def node(op, inputs, outputs=("y",), **attributes):
    return helper.make_node(op, inputs, list(outputs), "it", domain="com.microsoft", **attributes)


def check_taken_apart(op, inputs, weights, outputs=("y",), *, names=None, opset=17, **attributes):
    names = names or [*inputs, *weights]
    model = model_of(
        [node(op, names, outputs, **attributes)],
        inputs,
        [name for name in outputs if name],
        weights,
        opset=opset,
    )
    changed = check(model, inputs, rtol=1e-3, atol=1e-4)
    assert all(entry.domain != "com.microsoft" for entry in changed.graph.node)
    return operators(changed)


@pytest.mark.parametrize("op", ["Gelu", "FastGelu", "QuickGelu"])
def test_gelu(op):
    check_taken_apart(op, {"x": 3 * normal(4, 6)}, {})


@pytest.mark.parametrize("op", ["BiasGelu", "FastGelu"])
def test_gelu_with_bias(op):
    check_taken_apart(op, {"x": 3 * normal(4, 6)}, {"b": normal(6)})


@pytest.mark.parametrize("a", [False, True])
@pytest.mark.parametrize("b", [False, True])
def test_fused_matmul(a, b):
    x = normal(2, 4, 3) if a else normal(2, 3, 4)
    w = normal(2, 5, 4) if b else normal(2, 4, 5)
    check_taken_apart("FusedMatMul", {"x": x}, {"w": w}, transA=int(a), transB=int(b), alpha=0.3)


@pytest.mark.parametrize(
    ("name", "extra"),
    [("Relu", {}), ("LeakyRelu", {"activation_alpha": 0.2}), ("Sigmoid", {})],
)
def test_fused_gemm(name, extra):
    weights = {"w": normal(5, 4), "c": normal(5)}
    check_taken_apart(
        "FusedGemm", {"x": normal(3, 4)}, weights, activation=name, transB=1, alpha=0.5, **extra
    )


@pytest.mark.parametrize(
    ("name", "parameters"), [("Relu", []), ("Clip", [0.0, 1.0]), ("LeakyRelu", [0.1])]
)
@pytest.mark.parametrize("with_sum", [False, True])
def test_fused_conv(name, parameters, with_sum):
    x, weights = {"x": normal(1, 3, 6, 6)}, {"w": normal(4, 3, 3, 3), "b": normal(4)}
    if with_sum:
        weights["z"] = normal(1, 4, 6, 6)
    extra = {"activation_params": parameters} if parameters else {}
    check_taken_apart("FusedConv", x, weights, activation=name, pads=[1, 1, 1, 1], **extra)


@pytest.mark.parametrize("opset", [13, 17])
@pytest.mark.parametrize("bias", [False, True])
def test_skip_layer_norm(opset, bias):
    inputs = {"x": normal(B, S, H), "skip": normal(B, S, H)}
    weights = {"gamma": normal(H), "beta": normal(H)} | ({"bias": normal(H)} if bias else {})
    outputs = ("y", "", "", "total")
    check_taken_apart("SkipLayerNormalization", inputs, weights, outputs, opset=opset, epsilon=1e-3)


def test_skip_simplified_layer_norm():
    inputs = {"x": normal(B, S, H), "skip": normal(B, S, H)}
    weights = {"gamma": normal(H), "bias": normal(H)}
    check_taken_apart("SkipSimplifiedLayerNormalization", inputs, weights, epsilon=1e-3)


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("segments", [False, True])
def test_embed_layer_norm(mask, segments):
    inputs = {"ids": rng.integers(0, 9, (B, S)).astype(np.int32)}
    if segments:
        inputs["segments"] = rng.integers(0, 2, (B, S)).astype(np.int32)
    if mask:
        inputs["mask"] = (np.arange(S) < np.array([[3], [S]])).astype(np.int32)
    weights = {"words": normal(9, H), "places": normal(7, H)}
    weights |= {"types": normal(2, H)} if segments else {}
    weights |= {"gamma": normal(H), "beta": normal(H)}
    names = ["ids", "segments" if segments else "", "words", "places"]
    names += ["types" if segments else "", "gamma", "beta"] + (["mask"] if mask else [])
    check_taken_apart(
        "EmbedLayerNormalization", inputs, weights, ("y", "lengths"), names=names, epsilon=1e-3
    )


def attention_masks():
    keep = (np.arange(S) < np.array([[3], [S]])).astype(np.int32)
    return {
        "none": None,
        "keys": keep,
        "pairs": np.repeat(keep[:, None], S, axis=1),
        "lengths": np.array([3, S], np.int32),
    }


@pytest.mark.parametrize("mask", ["none", "keys", "pairs", "lengths"])
@pytest.mark.parametrize("causal", [0, 1])
def test_attention(mask, causal):
    inputs = {"x": normal(B, S, H)}
    weights = {"w": normal(H, 3 * H), "b": normal(3 * H)}
    value = attention_masks()[mask]
    if value is not None:
        inputs["mask"] = value
    names = ["x", "w", "b"] + (["mask"] if value is not None else [])
    check_taken_apart("Attention", inputs, weights, names=names, num_heads=N, unidirectional=causal)


def test_attention_with_sizes_and_an_added_bias():
    inputs = {"x": normal(B, S, H), "added": normal(B, N, S, S)}
    weights = {"w": normal(H, 4 + 4 + 6), "b": normal(14)}
    names = ["x", "w", "b", "", "", "added"]
    check_taken_apart(
        "Attention",
        inputs,
        weights,
        names=names,
        num_heads=N,
        qkv_hidden_sizes=[4, 4, 6],
        scale=0.7,
    )


@pytest.mark.parametrize("padding", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_multi_head_attention(padding, bias):
    keys = 7
    inputs = {"q": normal(B, S, H), "k": normal(B, keys, H), "v": normal(B, keys, H)}
    weights = {"bias": normal(3 * H)} if bias else {}
    if padding:
        inputs["padding"] = (np.arange(keys) < np.array([[3], [keys]])).astype(np.int32)
    inputs["added"] = normal(1, N, S, keys)
    names = ["q", "k", "v", "bias" if bias else "", "padding" if padding else "", "added"]
    check_taken_apart("MultiHeadAttention", inputs, weights, names=names, num_heads=N)


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("bits", [4, 8])
def test_matmul_of_packed_bits(zeros, bits):
    k, n, block = 80, 6, 32
    blocks = -(-k // block)
    weights = {
        "b": rng.integers(0, 256, (n, blocks, block * bits // 8)).astype(np.uint8),
        "s": (rng.random(n * blocks) + 0.1).astype(np.float32),
    }
    if zeros:
        packed = -(-blocks * bits // 8)
        weights["z"] = rng.integers(0, 256, n * packed).astype(np.uint8)
    check_taken_apart(
        "MatMulNBits", {"a": normal(3, k)}, weights, bits=bits, K=k, N=n, block_size=block
    )


def test_plain_additions_and_triangles():
    x = normal(B, S, H)
    check_taken_apart("Trilu", {"x": x[0]}, {}, upper=1)
