"""Convolutions, pooling and resizing in all their forms, against ONNX Runtime."""

from __future__ import annotations

import math

import numpy as np
import onnx
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import helper
from rewrite_cases import check, model_of, run

SETTINGS = settings(max_examples=120, deadline=None)


def normal(draw, *shape):
    seed = draw(st.integers(0, 2**32 - 1))
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def runs(model, inputs):
    """Whether ONNX Runtime takes the model at all: attributes may not go together."""
    try:
        run(model, inputs)
    except Exception:  # its exceptions share no base class
        return False
    return True


def windows(draw, dims, *, padding=True):
    """Attributes of a window over so many dimensions."""
    kernel = [draw(st.integers(1, 3)) for _ in range(dims)]
    attributes = {"kernel_shape": kernel}
    if draw(st.booleans()):
        attributes["strides"] = [draw(st.integers(1, 3)) for _ in range(dims)]
    if draw(st.booleans()):
        attributes["dilations"] = [draw(st.integers(1, 2)) for _ in range(dims)]
    choice = draw(st.sampled_from(["none", "pads", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if choice == "pads" and padding:
        attributes["pads"] = [draw(st.integers(0, k - 1)) for k in kernel * 2]
    elif choice not in ("none", "pads"):
        attributes["auto_pad"] = choice
    return attributes


@SETTINGS
@given(st.data())
def test_convolution(data):
    draw = data.draw
    dims = draw(st.integers(1, 2))
    attributes = windows(draw, dims)
    attributes["group"] = draw(st.sampled_from([1, 2]))
    x = normal(draw, 2, 4, *(7 for _ in range(dims)))
    channels = 4 // attributes["group"]
    weights = {"w": normal(draw, 6, channels, *attributes["kernel_shape"]), "b": normal(draw, 6)}
    model = model_of(
        [helper.make_node("Conv", ["x", "w", "b"], ["y"], **attributes)], {"x": x}, ["y"], weights
    )
    assume(runs(model, {"x": x}))
    changed = check(model, {"x": x}, atol=1e-4)
    assert all(len(tensor.dims) != 3 for tensor in changed.graph.initializer)


@SETTINGS
@given(st.data())
def test_transposed_convolution(data):
    draw = data.draw
    dims = draw(st.integers(1, 2))
    attributes = windows(draw, dims)
    attributes["group"] = draw(st.sampled_from([1, 2]))
    strides = attributes.get("strides", [1] * dims)
    asked = draw(st.sampled_from(["nothing", "padding", "shape"]))
    if asked == "padding":
        attributes["output_padding"] = [draw(st.integers(0, stride - 1)) for stride in strides]
    elif asked == "shape":
        attributes["output_shape"] = [5 * stride + draw(st.integers(-1, 1)) for stride in strides]
    x = normal(draw, 1, 4, *(5 for _ in range(dims)))
    weights = {"w": normal(draw, 4, 3, *attributes["kernel_shape"])}
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], **attributes)
    model = model_of([node], {"x": x}, ["y"], weights)
    assume(runs(model, {"x": x}))
    changed = check(model, {"x": x}, atol=1e-4)
    (found,) = (node for node in changed.graph.node if node.op_type == "ConvTranspose")
    assert {a.name for a in found.attribute} & {"output_shape", "auto_pad"} == set()


@SETTINGS
@given(st.data())
def test_pooling(data):
    draw = data.draw
    dims = draw(st.integers(1, 2))
    op = draw(st.sampled_from(["MaxPool", "AveragePool", "LpPool"]))
    attributes = windows(draw, dims)
    opset = draw(st.sampled_from([12, 19]))
    if opset < 19 and op != "MaxPool":
        attributes.pop("dilations", None)
    if draw(st.booleans()) and op != "LpPool":
        attributes["ceil_mode"] = 1
    if draw(st.booleans()) and op == "AveragePool":
        attributes["count_include_pad"] = 1
    x = normal(draw, 2, 3, *(draw(st.integers(5, 8)) for _ in range(dims)))
    node = helper.make_node(op, ["x"], ["y"], **attributes)
    model = model_of([node], {"x": x}, ["y"], opset=opset)
    assume(runs(model, {"x": x}))
    check(model, {"x": x}, atol=1e-4)


@SETTINGS
@given(st.data())
def test_places_of_maxima(data):
    draw = data.draw
    dims = draw(st.integers(1, 2))
    attributes = windows(draw, dims)
    if "SAME" in attributes.get("auto_pad", ""):  # see `settle_pool_pads`
        strides = attributes.get("strides", [1] * dims)
        assume(all(k >= s for k, s in zip(attributes["kernel_shape"], strides, strict=True)))
    attributes["ceil_mode"] = draw(st.integers(0, 1))
    attributes["storage_order"] = draw(st.integers(0, 1))
    x = normal(draw, 2, 2, *(draw(st.integers(5, 8)) for _ in range(dims)))
    node = helper.make_node("MaxPool", ["x"], ["y", "i"], **attributes)
    model = model_of([node], {"x": x}, ["y", "i"], opset=12)
    assume(runs(model, {"x": x}))
    changed = check(model, {"x": x})
    assert all(len(node.output) == 1 for node in changed.graph.node if node.op_type == "MaxPool")


@settings(max_examples=250, deadline=None)
@given(st.data())
def test_resizing(data):
    draw = data.draw
    dims = draw(st.integers(1, 3))
    opset = draw(st.sampled_from([11, 13, 18, 19]))
    mode = draw(st.sampled_from(["nearest", "linear"] + (["cubic"] if dims == 2 else [])))
    shape = [1, 2, *(draw(st.integers(2, 7)) for _ in range(dims))]
    attributes = {"mode": mode, "coordinate_transformation_mode": draw(coordinates(opset, mode))}
    if mode == "nearest":
        rounding = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]
        attributes["nearest_mode"] = draw(st.sampled_from(rounding))
    if mode == "cubic":
        attributes["exclude_outside"] = draw(st.integers(0, 1))
        attributes["cubic_coeff_a"] = draw(st.sampled_from([-0.75, -0.5]))
    if opset >= 18 and mode != "nearest":
        attributes["antialias"] = draw(st.integers(0, 1))
    if draw(st.booleans()):
        factors = st.sampled_from([0.3, 0.5, 0.6, 0.75, 1.0, 1.5, 2.0, 3.0])
        scales = [draw(factors) for _ in range(dims)]
        assume(all(math.floor(s * e) > 0 for s, e in zip(scales, shape[2:], strict=True)))
        weights, names = {"s": np.array([1, 1, *scales], np.float32)}, ["x", "", "s"]
    else:
        sizes = [draw(st.integers(1, 12)) for _ in range(dims)]
        weights, names = {"z": np.array([1, 2, *sizes], np.int64)}, ["x", "", "", "z"]
    x = normal(draw, *shape)
    node = helper.make_node("Resize", names, ["y"], **attributes)
    model = model_of([node], {"x": x}, ["y"], weights, opset=opset)
    assume(runs(model, {"x": x}))
    check(model, {"x": x}, rtol=1e-3, atol=1e-4)


def coordinates(opset, mode):
    """Modes of an opset; positions of `half_pixel_symmetric` are ties that the last bit decides."""
    modes = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]
    return st.sampled_from(
        modes + (["half_pixel_symmetric"] if opset >= 19 and mode != "nearest" else [])
    )


def test_upsampling_of_old_files():
    x = np.arange(12, dtype=np.float32).reshape(1, 1, 3, 4)
    scales = np.array([1, 1, 2, 2], np.float32)
    node = helper.make_node("Upsample", ["x", "s"], ["y"], mode="nearest")
    model = model_of([node], {"x": x}, ["y"], {"s": scales}, opset=9)
    changed = check(model, {"x": x})
    assert onnx.helper.printable_graph(changed.graph).count("Upsample") == 0


def test_folding_of_columns():
    rng = np.random.default_rng(4)
    x = rng.standard_normal((2, 3 * 6, 12)).astype(np.float32)
    weights = {"image": np.array([5, 5], np.int64), "block": np.array([2, 3], np.int64)}
    node = helper.make_node("Col2Im", ["x", "image", "block"], ["y"])
    check(model_of([node], {"x": x}, ["y"], weights, opset=18), {"x": x})


def test_a_chain_over_one_dimension_stays_in_two():
    rng = np.random.default_rng(5)
    x = rng.standard_normal((1, 4, 16)).astype(np.float32)
    weights = {"w": rng.standard_normal((4, 4, 3)).astype(np.float32), "c": np.float32(1.4)}
    weights["p"] = rng.standard_normal((4, 1)).astype(np.float32)
    weights |= {name: np.abs(rng.standard_normal(4)).astype(np.float32) for name in "sbmv"}
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w"], ["a"], pads=[1, 1]),
        node("BatchNormalization", ["a", *"sbmv"], ["n"]),
        node("Mul", ["n", "c"], ["d"]),
        node("Sigmoid", ["d"], ["e"]),
        node("Mul", ["n", "e"], ["g"]),
        node("Conv", ["g", "w"], ["h"], pads=[1, 1]),
        node("InstanceNormalization", ["h", "s", "b"], ["r"]),
        node("Mul", ["p", "r"], ["q"]),
        node("Add", ["q", "g"], ["i"]),
        node("Concat", ["i", "h"], ["k"], axis=1),
        node("MaxPool", ["k"], ["l"], kernel_shape=[2]),
        node("Transpose", ["l"], ["y"], perm=[0, 2, 1]),
    ]
    changed = check(model_of(nodes, {"x": x}, ["y", "g"], weights), {"x": x})
    kinds = [node.op_type for node in changed.graph.node]
    assert kinds.count("Unsqueeze") == 2  # of the input, and of `p`
    assert kinds.count("Squeeze") == 2  # one for each output
