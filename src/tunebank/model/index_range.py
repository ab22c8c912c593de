"""Which integers are legal at a model's inputs: indices must lie within what they index.

A token id is looked up in a table of so many rows, and nothing in an ONNX file says that of the
input itself. So each integer input is followed through the graph, in the order of its nodes, to
wherever it ends as an index:

    ids ─Cast─▶ ─Unsqueeze─▶ ─Add 2─▶ Gather(table (512, 64), axis 0)      ids + 2 < 512: ids < 510

On the way its values are known up to a factor and an offset, each from a constant. What depends
on it in another way (a sum of two inputs, a cumulative sum) may be anything: if that ends as an
index, the input is held to 0 and 1, as one of which nothing is known. A comparison gives a truth
value, a look-up gives what is in the table: neither is followed further. The smallest bound wins.

Only shapes of weights are looked at, and values of single numbers: weights may lie in a file
that is not there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx

from tunebank.model.index_extent import Extents

_INTEGERS = (
    onnx.TensorProto.INT64,
    onnx.TensorProto.INT32,
    onnx.TensorProto.INT16,
    onnx.TensorProto.INT8,
    onnx.TensorProto.UINT64,
    onnx.TensorProto.UINT32,
    onnx.TensorProto.UINT16,
    onnx.TensorProto.UINT8,
)

_SAFE_LIMIT = 2

# fmt: off
_MOVED = (
    "Identity", "Cast", "CastLike", "Dropout", "Reshape", "Squeeze", "Unsqueeze", "Flatten",
    "Transpose", "Slice", "Expand", "Tile", "Pad", "Split", "Gather", "GatherElements",
    "GatherND", "ReverseSequence", "Trilu", "TopK", "Compress", "Unique", "DepthToSpace",
    "SpaceToDepth",
)
"""Operators whose results are values of their first operand, elsewhere."""
_SHRUNK = (
    "Clip", "Abs", "Neg", "Relu", "Ceil", "Floor", "Round", "Div", "Mod", "Sub", "ReduceMax",
    "ReduceMin", "MaxPool",
)
"""Operators whose results are no larger than their first operand."""
# fmt: on
_PASSED_ALL = ("Concat", "Max", "Min")
_PASSED_AT = {"Where": (1, 2), "ScatterElements": (0, 2), "ScatterND": (0, 2)}
_SPOILED = ("Add", "Sub", "Mul", "Sum", "CumSum", "ReduceSum", "ReduceProd", "Pow", "Einsum")
"""Operators of which no more is known than that the result depends on the input."""


@dataclass(frozen=True)
class _Relation:
    """A tensor's values are at most `factor * input + offset`; unknown if factor is 0."""

    source: str
    factor: int = 1
    offset: int = 0

    def limit(self, extent: int | None) -> int:
        """The exclusive upper bound of the input, if the tensor has to stay below an extent."""
        if extent is None or self.factor == 0:
            return _SAFE_LIMIT
        return max(1, (extent - 1 - self.offset) // self.factor + 1)


def index_limits(model: onnx.ModelProto) -> dict[str, int]:
    """For each integer input that ends as an index, the exclusive upper bound of its values.

    Args:
        model: the model; its weights may be external, and absent.
    """
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    followed = _Followed(Extents(model))
    for value in inputs:
        if value.type.tensor_type.elem_type in _INTEGERS:
            followed.start(value.name)
    followed.walk(graph)
    return followed.limits


class _Followed:
    """The tensors that depend on integer inputs, and the bounds found so far."""

    def __init__(self, extents: Extents) -> None:
        self._extents = extents
        self._relations: dict[str, set[_Relation]] = {}
        self.limits: dict[str, int] = {}

    def start(self, name: str) -> None:
        """Follows an input."""
        self._relations[name] = {_Relation(name)}

    def walk(self, graph: onnx.GraphProto) -> None:
        """Follows through the nodes of a graph, and of the graphs in it."""
        for node in graph.node:
            for attribute in node.attribute:
                for inner in (attribute.g, *attribute.graphs):
                    if inner.node:
                        self.walk(inner)
            if any(name in self._relations for name in node.input):
                self._bound(node)
                self._pass_on(node)

    def _bound(self, node: onnx.NodeProto) -> None:
        for position, extent in self._extents.of_indices(node):
            for relation in self._relations.get(node.input[position], ()):
                limit = relation.limit(extent)
                self.limits[relation.source] = min(limit, self.limits.get(relation.source, limit))

    def _pass_on(self, node: onnx.NodeProto) -> None:
        found: set[_Relation] = set()
        for position, name in enumerate(node.input):
            for relation in self._relations.get(name, ()):
                found.update(self._passed(node, position, relation))
        if found:
            for name in node.output:
                self._relations.setdefault(name, set()).update(found)

    def _passed(
        self, node: onnx.NodeProto, position: int, relation: _Relation
    ) -> Iterator[_Relation]:
        """How the node's results depend on an input, given how one of its operands does."""
        if node.op_type in ("Add", "Mul") and relation.factor:
            constant = self._extents.largest_value(node.input[1 - position])
            if constant is not None and node.op_type == "Add":
                yield _Relation(
                    relation.source, relation.factor, relation.offset + max(0, constant)
                )
                return
            if constant is not None and constant > 0:
                yield _Relation(
                    relation.source, relation.factor * constant, relation.offset * constant
                )
                return
        if position in _passed_positions(node):
            yield relation
        elif node.op_type in _SPOILED:
            yield _Relation(relation.source, factor=0)


def _passed_positions(node: onnx.NodeProto) -> Sequence[int]:
    """Positions of the operands whose values are the results'."""
    if node.op_type in _PASSED_AT:
        return _PASSED_AT[node.op_type]
    if node.op_type in _PASSED_ALL:
        return range(len(node.input))
    return (0,) if node.op_type in _MOVED or node.op_type in _SHRUNK else ()
