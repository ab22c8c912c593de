"""Sets of shapes from what is given: zipped, multiplied, refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, ValueInfoProto, helper

from tunebank.errors import ModelError
from tunebank.model.shapes import shape_sets

PATH = Path("model.onnx")


def inputs(**shapes: list[int | str] | None) -> list[ValueInfoProto]:
    return [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    ]


def test_what_is_fixed_is_one_set() -> None:
    assert shape_sets(PATH, inputs(x=[1, 3], s=[]), {}, {}) == [{"x": (1, 3), "s": ()}]


def test_several_shapes_of_inputs_go_together() -> None:
    given = {"x": [[1, 8], [1, 16]], "mask": [[1, 8], [1, 16]], "y": [2, 2]}
    found = shape_sets(PATH, inputs(x=[1, "n"], mask=["b", "n"], y=["p", "q"]), given, {})
    assert found == [
        {"x": (1, 8), "mask": (1, 8), "y": (2, 2)},
        {"x": (1, 16), "mask": (1, 16), "y": (2, 2)},
    ]


def test_dimensions_are_multiplied() -> None:
    found = shape_sets(PATH, inputs(x=["b", "n"], m=["b"]), {}, {"b": [1, 2], "n": [8, 16]})
    assert [(one["x"], one["m"]) for one in found] == [
        ((1, 8), (1,)),
        ((1, 16), (1,)),
        ((2, 8), (2,)),
        ((2, 16), (2,)),
    ]


def test_equal_sets_are_one() -> None:
    assert len(shape_sets(PATH, inputs(x=["b"]), {"x": [[2], [2]]}, {})) == 1
    assert len(shape_sets(PATH, inputs(x=["b"]), {}, {"b": [3, 3]})) == 1


@pytest.mark.parametrize(
    ("given", "dims", "said"),
    [
        ({}, {"n": [2]}, "no symbolic dimension 'n'; there are: b"),
        ({}, {"b": [0]}, "--dim b=0: a dimension is at least 1"),
        ({}, {"b": []}, "--dim b="),
        ({"x": [[1, 4], [2, 4]], "y": [[1], [2], [3]]}, {}, "equally many"),
        ({}, {}, "has a dynamic shape"),
        ({"x": [1, 4]}, {}, "input 'y' has a dynamic shape"),
        ({}, {"b": list(range(1, 100))}, "99 sets of shapes; at most"),
    ],
)
def test_what_does_not_fit_is_refused(given: Any, dims: Any, said: str) -> None:
    with pytest.raises(ModelError) as caught:
        shape_sets(PATH, inputs(x=["b", 4], y=["b"]), given, dims)
    assert said in str(caught.value)
    assert str(caught.value).startswith("model.onnx: ")
