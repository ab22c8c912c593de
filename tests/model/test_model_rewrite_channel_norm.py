"""Normalisation of channels in all forms, against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper
from rewrite_cases import check, model_of, operators

node = helper.make_node


def drawn(*shape, shift=0.0):
    return (np.random.default_rng(7).standard_normal(shape) + shift).astype(np.float32)


@pytest.mark.parametrize("shape", [(2, 4, 9), (1, 3, 5, 6), (2, 2, 3, 4, 5)], ids=str)
def test_instance_norm(shape):
    x = drawn(*shape, shift=3.0)
    weights = {"s": drawn(shape[1]), "b": drawn(shape[1], shift=1.0)}
    nodes = [node("InstanceNormalization", ["x", "s", "b"], ["y"], epsilon=1e-3)]
    changed = check(model_of(nodes, {"x": x}, ["y"], weights), {"x": x})
    assert "InstanceNormalization" not in operators(changed)


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("shape", [(2, 6, 9), (2, 6, 5, 4)], ids=str)
def test_group_norm_as_it_is_exported(shape, groups):
    x = drawn(*shape, shift=-2.0)
    weights = {
        "s": drawn(groups),
        "b": drawn(groups, shift=1.0),
        "flat": np.array([0, groups, -1]),
        "back": np.array(shape),
        "p": drawn(6, *[1] * (len(shape) - 2)),
    }
    nodes = [
        node("Relu", ["x"], ["h"]),
        node("Reshape", ["h", "flat"], ["f"]),
        node("InstanceNormalization", ["f", "s", "b"], ["n"]),
        node("Reshape", ["n", "back"], ["r"]),
        node("Mul", ["r", "p"], ["y"]),
    ]
    changed = check(model_of(nodes, {"x": x}, ["y"], weights), {"x": x})
    assert "InstanceNormalization" not in operators(changed)
    shapes = [list(value.output) for value in changed.graph.node if value.op_type == "Reshape"]
    assert ["r"] not in shapes, "what undoes another is left out"


@pytest.mark.parametrize("opset", [18, 21])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_group_norm(groups, opset):
    x = drawn(2, 6, 5, 4, shift=2.0)
    of = groups if opset < 21 else 6
    weights = {"s": drawn(of), "b": drawn(of, shift=1.0)}
    nodes = [node("GroupNormalization", ["x", "s", "b"], ["y"], num_groups=groups, epsilon=1e-3)]
    changed = check(model_of(nodes, {"x": x}, ["y"], weights, opset=opset), {"x": x})
    assert "GroupNormalization" not in operators(changed)


def test_a_reshape_that_is_wanted_stays():
    x = drawn(2, 6, 4)
    weights = {"a": np.array([2, 24]), "b": np.array([6, 2, 4])}
    nodes = [node("Reshape", ["x", "a"], ["h"]), node("Reshape", ["h", "b"], ["y"])]
    changed = check(model_of(nodes, {"x": x}, ["y", "h"], weights), {"x": x})
    assert operators(changed) == {"Reshape"}
