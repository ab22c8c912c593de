"""Legal integers: what an input indexes, however it gets there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tunebank.model.index_range import index_limits

Node = onnx.NodeProto
node = helper.make_node

TABLE = (512, 8)


def _model(
    nodes: Sequence[Node],
    *,
    inputs: Sequence[str] = ("ids",),
    weights: dict[str, np.ndarray] | None = None,
    dtype: int = TensorProto.INT64,
) -> onnx.ModelProto:
    """A model with inputs of shape (1, 6), and the table `t` among its weights."""
    arrays = {"t": np.zeros(TABLE, np.float32), **(weights or {})}
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(name, dtype, [1, 6]) for name in inputs],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def _int(value: object) -> np.ndarray:
    return np.array(value, np.int64)


LOOK_UP = node("Gather", ["t", "ids"], ["y"])


def test_a_look_up() -> None:
    assert index_limits(_model([LOOK_UP])) == {"ids": 512}
    by_column = node("Gather", ["t", "ids"], ["y"], axis=-1)
    assert index_limits(_model([by_column], dtype=TensorProto.INT32)) == {"ids": 8}


@pytest.mark.parametrize(
    "way",
    [
        node("Cast", ["ids"], ["i"], to=TensorProto.INT32),
        node("Unsqueeze", ["ids", "one"], ["i"]),
        node("Reshape", ["ids", "shape"], ["i"]),
        node("Transpose", ["ids"], ["i"]),
        node("Concat", ["ids", "ids"], ["i"], axis=0),
        node("Gather", ["ids", "one"], ["i"], axis=1),
        node("Where", ["mask", "ids", "one"], ["i"]),
        node("Clip", ["ids", "one"], ["i"]),
        node("Split", ["ids"], ["other", "i"], axis=1),
        node("Identity", ["ids"], ["i"]),
    ],
    ids=lambda one: one.op_type,
)
def test_followed_to_where_it_is_looked_up(way: Node) -> None:
    weights = {"one": _int([1]), "shape": _int([6]), "mask": np.ones((1, 6), bool)}
    model = _model([way, node("Gather", ["t", "i"], ["y"])], weights=weights)
    assert index_limits(model) == {"ids": 512}


@pytest.mark.parametrize(
    ("kind", "constant", "limit"),
    [
        ("Add", 2, 510),
        ("Add", -1, 512),
        ("Add", [1, 5], 507),
        ("Mul", 10, 52),
        ("Mul", 0, 2),
        ("Mul", -1, 2),
    ],
)
def test_arithmetic_with_constants(kind: str, constant: object, limit: int) -> None:
    nodes = [node(kind, ["ids", "c"], ["i"]), node("Gather", ["t", "i"], ["y"])]
    model = _model(nodes, weights={"c": _int(constant)})
    assert index_limits(model) == {"ids": limit}
    largest = np.arange(limit).max()
    value = largest + np.max(constant) if kind == "Add" else largest * np.max(constant)
    assert value < TABLE[0]


def test_what_is_not_known_is_held_to_0_and_1() -> None:
    nodes = [node("Add", ["ids", "more"], ["i"]), node("Gather", ["t", "i"], ["y"])]
    assert index_limits(_model(nodes, inputs=("ids", "more"))) == {"ids": 2, "more": 2}
    nodes = [node("CumSum", ["ids", "axis"], ["i"]), node("Gather", ["t", "i"], ["y"])]
    assert index_limits(_model(nodes, weights={"axis": _int(1)})) == {"ids": 2}


def test_the_smallest_bound_wins() -> None:
    weights = {"small": np.zeros((30, 2), np.float32), "c": _int(100)}
    nodes = [
        LOOK_UP,
        node("Gather", ["small", "ids"], ["z"]),
        node("Add", ["ids", "c"], ["i"]),
        node("Gather", ["t", "i"], ["w"]),
    ]
    assert index_limits(_model(nodes, weights=weights)) == {"ids": 30}
    assert index_limits(_model([nodes[0], *nodes[2:]], weights=weights)) == {"ids": 412}


def test_comparisons_and_look_ups_end_the_way() -> None:
    # A mask made of ids selects positions: the ids themselves may be anything.
    nodes = [
        node("Equal", ["ids", "pad"], ["is_pad"]),
        node("Cast", ["is_pad"], ["i"], to=TensorProto.INT64),
        node("Gather", ["t", "i"], ["y"]),
    ]
    assert index_limits(_model(nodes, weights={"pad": _int(0)})) == {}
    nodes = [
        node("Gather", ["buffer", "ids"], ["i"]),
        node("Gather", ["t", "i"], ["y"]),
    ]
    assert index_limits(_model(nodes, weights={"buffer": _int(range(40))})) == {"ids": 40}


@pytest.mark.parametrize(
    ("last", "limit"),
    [
        (node("GatherElements", ["t", "ids"], ["y"], axis=1), 8),
        (node("ScatterElements", ["t", "ids", "u"], ["y"], axis=0), 512),
        (node("OneHot", ["ids", "depth", "values"], ["y"]), 7),
        (node("GatherND", ["cube", "ids"], ["y"]), 3),
        (
            node(
                "EmbedLayerNormalization",
                ["ids", "", "t", "t", "", "g", "g"],
                ["y"],
                domain="com.microsoft",
            ),
            512,
        ),
    ],
    ids=lambda one: one.op_type if isinstance(one, Node) else str(one),
)
def test_other_operators_with_indices(last: Node, limit: int) -> None:
    weights = {
        "u": np.zeros((1, 6), np.float32),
        "g": np.zeros(8, np.float32),
        "depth": _int(7),
        "values": np.array([0, 1], np.float32),
        "cube": np.zeros((9, 8, 7, 3, 4, 5), np.float32),
    }
    assert index_limits(_model([last], weights=weights)) == {"ids": limit}


def test_shapes_are_inferred_where_the_data_is_no_weight() -> None:
    nodes = [
        node("Cast", ["t"], ["halved"], to=TensorProto.FLOAT16),
        node("Slice", ["halved", "from", "to"], ["some"]),
        node("Gather", ["some", "ids"], ["y"]),
    ]
    weights = {"from": _int([0]), "to": _int([100])}
    assert index_limits(_model(nodes, weights=weights)) == {"ids": 100}


def test_external_weights_need_not_be_there() -> None:
    model = _model([LOOK_UP])
    (table,) = model.graph.initializer
    table.ClearField("raw_data")
    table.data_location = TensorProto.EXTERNAL
    table.external_data.add(key="location", value="gone.bin")
    assert index_limits(model) == {"ids": 512}


def test_branches_see_the_inputs_around_them() -> None:
    def branch(name: str) -> onnx.GraphProto:
        inner = node("Gather", ["t", "ids"], [name])
        result = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        return helper.make_graph([inner], name, [], [result])

    choice = node("If", ["c"], ["y"], then_branch=branch("a"), else_branch=branch("b"))
    assert index_limits(_model([choice], weights={"c": np.array(True)})) == {"ids": 512}


def test_inputs_that_are_no_indices_have_no_limit() -> None:
    nodes = [node("Cast", ["ids"], ["f"], to=TensorProto.FLOAT), node("Mul", ["f", "f"], ["y"])]
    assert index_limits(_model(nodes)) == {}
    floats = _model([node("Relu", ["ids"], ["y"])], dtype=TensorProto.FLOAT)
    assert index_limits(floats) == {}
