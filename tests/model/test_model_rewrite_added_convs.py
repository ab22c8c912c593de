"""Convolutions that are added up become one; against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper
from rewrite_cases import check, model_of

node = helper.make_node
X = np.random.default_rng(3).standard_normal((2, 4, 11, 12)).astype(np.float32)


def conv(number, window, pads, weights, *, image="x", bias=True, groups=1, **moves):
    """A convolution to four channels; its result is `c` with the number."""
    rng = np.random.default_rng(number)
    inputs = [image, f"w{number}", *([f"b{number}"] if bias else [])]
    weights[f"w{number}"] = rng.standard_normal((4, 4 // groups, *window)).astype(np.float32)
    weights[f"b{number}"] = rng.standard_normal(4).astype(np.float32)
    return node("Conv", inputs, [f"c{number}"], pads=pads, group=groups, **moves)


def convolutions(model):
    return [one for one in model.graph.node if one.op_type == "Conv"]


def chain(count, last="y"):
    """c0 + c1 + ..."""
    names = ["c0", *(f"s{i}" for i in range(1, count - 1)), last]
    return [node("Add", [names[i - 1], f"c{i}"], [names[i]]) for i in range(1, count)]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 4])
def test_windows_around_one_pixel(stride, groups):
    weights = {}
    moves = {"strides": [stride, stride], "groups": groups}
    nodes = [
        conv(0, (3, 1), [1, 0, 1, 0], weights, bias=False, **moves),
        conv(1, (1, 3), [0, 1, 0, 1], weights, **moves),
        conv(2, (3, 3), [1, 1, 1, 1], weights, **moves),
        conv(3, (1, 1), [0, 0, 0, 0], weights, bias=False, **moves),
        *chain(4, "sum"),
        node("Relu", ["sum"], ["y"]),
    ]
    changed = check(model_of(nodes, {"x": X}, ["y"], weights), {"x": X})
    (one,) = convolutions(changed)
    assert helper.get_node_attr_value(one, "kernel_shape") == [3, 3]


def test_windows_beside_each_other_and_other_terms():
    weights = {}
    nodes = [
        conv(0, (3, 2), [2, 0, 0, 1], weights),
        node("Mul", ["x", "x"], ["c1"]),
        conv(2, (2, 2), [1, 0, 0, 1], weights),
        *chain(3),
    ]
    changed = check(model_of(nodes, {"x": X}, ["y"], weights), {"x": X})
    (one,) = convolutions(changed)
    assert helper.get_node_attr_value(one, "kernel_shape") == [3, 2]


def test_of_dilated_windows_those_with_taps_in_one_place():
    weights = {}
    nodes = [
        conv(0, (3, 3), [2, 2, 2, 2], weights, dilations=[2, 2]),
        conv(1, (2, 2), [1, 1, 1, 1], weights, dilations=[2, 2]),
        conv(2, (1, 1), [0, 0, 0, 0], weights, dilations=[2, 2]),
        *chain(3),
    ]
    changed = check(model_of(nodes, {"x": X}, ["y"], weights), {"x": X})
    assert len(convolutions(changed)) == 2


@pytest.mark.parametrize(
    "second",
    [
        {"window": (1, 3), "pads": [0, 1, 0, 1]},
        {"window": (3, 1), "pads": [1, 0, 1, 0], "image": "h"},
        {"window": (3, 1), "pads": [1, 0, 1, 0], "groups": 2},
    ],
    ids=["more taps together", "another image", "other groups"],
)
def test_what_stays_apart(second):
    weights = {}
    nodes = [
        node("Relu", ["x"], ["h"]),
        conv(0, (3, 1), [1, 0, 1, 0], weights),
        conv(1, second.pop("window"), second.pop("pads"), weights, **second),
        *chain(2),
    ]
    changed = check(model_of(nodes, {"x": X}, ["y"], weights), {"x": X})
    assert len(convolutions(changed)) == 2


def test_a_result_that_is_wanted_stays():
    weights = {}
    nodes = [
        conv(0, (3, 3), [1, 1, 1, 1], weights),
        conv(1, (1, 1), [0, 0, 0, 0], weights),
        *chain(2),
    ]
    changed = check(model_of(nodes, {"x": X}, ["y", "c1"], weights), {"x": X})
    assert len(convolutions(changed)) == 2


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_the_image_scaled_or_as_it_is_joins_them(groups):
    weights = {name: np.random.default_rng(9).random(4).astype(np.float32) for name in "stmv"}
    nodes = [
        conv(0, (3, 3), [1, 1, 1, 1], weights, groups=groups),
        node("BatchNormalization", ["x", "s", "t", "m", "v"], ["c1"], epsilon=1e-3),
        node("Add", ["c0", "c1"], ["s1"]),
        node("Add", ["s1", "x"], ["y"]),
    ]
    changed = check(model_of(nodes, {"x": X}, ["y"], weights), {"x": X})
    assert len(convolutions(changed)) == 1
    assert "BatchNormalization" not in {one.op_type for one in changed.graph.node}
    (last,) = (one for one in changed.graph.node if "y" in one.output)
    assert last.op_type == "Identity"


def test_a_mere_residual_stays_one():
    weights = {}
    nodes = [conv(0, (3, 3), [1, 1, 1, 1], weights), node("Add", ["c0", "x"], ["y"])]
    changed = check(model_of(nodes, {"x": X}, ["y"], weights), {"x": X})
    assert [one.op_type for one in changed.graph.node] == ["Conv", "Add"]
