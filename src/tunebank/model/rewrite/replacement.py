"""Writing the nodes that take the place of one node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from tunebank.model.rewrite.graph import DOMAIN, Graph

INT64 = np.int64


class Replacement:
    """Nodes in the place of one node, written in the model's own operator set.

    Every method appends a node and returns the name of its result. Some operators moved an
    attribute to an input as versions went by (`axes` of Squeeze in 13): the methods named
    after them write what the model's version asks for.
    """

    def __init__(self, graph: Graph, node: onnx.NodeProto) -> None:
        self.graph = graph
        self.node = node
        self.nodes: list[onnx.NodeProto] = []
        self.stem = node.name or next((name for name in node.output if name), node.op_type)
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def op(
        self,
        op_type: str,
        *inputs: str,
        out: str | None = None,
        domain: str = DOMAIN,
        **attrs: Any,
    ) -> str:
        """Appends a node with one output, maybe called `out`; attributes of None are left out."""
        result = out or self._fresh(op_type)
        self._append(op_type, inputs, [result], domain, attrs)
        return result

    def op_many(
        self,
        op_type: str,
        *inputs: str,
        outputs: int | Sequence[str],
        domain: str = DOMAIN,
        **attrs: Any,
    ) -> list[str]:
        """Appends a node with several outputs."""
        names = (
            [self._fresh(op_type) for _ in range(outputs)]
            if isinstance(outputs, int)
            else list(outputs)
        )
        self._append(op_type, inputs, names, domain, attrs)
        return names

    def constant(self, value: Any, dtype: Any = None) -> str:
        """A constant; equal ones are written once."""
        array = np.asarray(value, dtype=dtype)
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self._constants:
            name = self._fresh("constant")
            self.graph.add_constant(array, name)
            self._constants[key] = name
        return self._constants[key]

    def scalar(self, value: float, elem_type: int) -> str:
        """A constant without dimensions of an ONNX data type."""
        return self.constant(value, helper.tensor_dtype_to_np_dtype(elem_type))

    def ints(self, values: Sequence[int]) -> str:
        """A constant list of int64, as shapes and axes are."""
        return self.constant(list(values), INT64)

    def identity(self, x: str, out: str) -> str:
        """The value under another name."""
        return self.op("Identity", x, out=out)

    def cast(self, x: str, elem_type: int, *, out: str | None = None) -> str:
        """Another data type."""
        return self.op("Cast", x, to=elem_type, out=out)

    def reshape(self, x: str, shape: Sequence[int], *, out: str | None = None) -> str:
        """Another shape."""
        return self.op("Reshape", x, self.ints(shape), out=out)

    def transpose(self, x: str, perm: Sequence[int], *, out: str | None = None) -> str:
        """Dimensions in another order."""
        return self.op("Transpose", x, perm=list(perm), out=out)

    def unsqueeze(self, x: str, axes: Sequence[int], *, out: str | None = None) -> str:
        """Dimensions of extent 1 put in."""
        return self._with_axes("Unsqueeze", x, axes, 13, out)

    def squeeze(self, x: str, axes: Sequence[int], *, out: str | None = None) -> str:
        """Dimensions of extent 1 dropped."""
        return self._with_axes("Squeeze", x, axes, 13, out)

    def reduce(
        self,
        op_type: str,
        x: str,
        axes: Sequence[int],
        *,
        keepdims: bool = True,
        out: str | None = None,
    ) -> str:
        """`ReduceSum`, `ReduceMean` and the like."""
        since = 13 if op_type == "ReduceSum" else 18
        return self._with_axes(op_type, x, axes, since, out, keepdims=int(keepdims))

    def slice(
        self, x: str, axis: int, start: int, end: int, *, step: int = 1, out: str | None = None
    ) -> str:
        """A part along one axis."""
        if self.graph.opset < 10:
            assert step == 1
            return self.op("Slice", x, axes=[axis], starts=[start], ends=[end], out=out)
        bounds = [self.ints([start]), self.ints([end]), self.ints([axis])]
        return self.op("Slice", x, *bounds, *([self.ints([step])] if step != 1 else []), out=out)

    def split(self, x: str, axis: int, sizes: Sequence[int]) -> list[str]:
        """Parts along one axis."""
        if len(sizes) == 1:
            return [x]
        if self.graph.opset < 13:
            return self.op_many("Split", x, outputs=len(sizes), axis=axis, split=list(sizes))
        return self.op_many("Split", x, self.ints(sizes), outputs=len(sizes), axis=axis)

    def concat(self, parts: Sequence[str], axis: int, *, out: str | None = None) -> str:
        """Parts one after another along an axis."""
        if len(parts) == 1 and out is None:
            return parts[0]
        return self.op("Concat", *parts, axis=axis, out=out)

    def sum(self, terms: Sequence[str], *, out: str | None = None) -> str:
        """All terms added up, one after another."""
        *some, last = terms
        if not some:
            return last if out is None else self.identity(last, out)
        total = some[0]
        for term in some[1:]:
            total = self.op("Add", total, term)
        return self.op("Add", total, last, out=out)

    def clip(
        self,
        x: str,
        low: float,
        high: float,
        elem_type: int = TensorProto.FLOAT,
        out: str | None = None,
    ) -> str:
        """Values held within bounds."""
        if self.graph.opset < 11:
            return self.op("Clip", x, min=float(low), max=float(high), out=out)
        bounds = [self.scalar(low, elem_type), self.scalar(high, elem_type)]
        return self.op("Clip", x, *bounds, out=out)

    def softmax(self, x: str, *, rank: int, out: str | None = None) -> str:
        """Softmax along the last axis; before version 13 it flattened what is behind its axis."""
        axis = -1 if self.graph.opset >= 13 else rank - 1
        return self.op("Softmax", x, axis=axis, out=out)

    def _with_axes(
        self,
        op_type: str,
        x: str,
        axes: Sequence[int],
        since: int,
        out: str | None,
        **attrs: Any,
    ) -> str:
        if self.graph.opset < since:
            return self.op(op_type, x, axes=list(axes), out=out, **attrs)
        return self.op(op_type, x, self.ints(axes), out=out, **attrs)

    def _append(
        self,
        op_type: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        domain: str,
        attrs: dict[str, Any],
    ) -> None:
        stated = {name: value for name, value in attrs.items() if value is not None}
        name = self.graph.fresh(f"{self.stem}/{op_type}")
        self.nodes.append(
            helper.make_node(op_type, list(inputs), list(outputs), name, domain=domain, **stated)
        )

    def _fresh(self, suffix: str) -> str:
        return self.graph.fresh(f"{self.stem}/{suffix}:0")
