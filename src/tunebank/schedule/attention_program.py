"""The program of an Attention schedule; see `attention.py`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tvm import ir, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T  # noqa: N812

from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.schedule.attention import Attention, Parameters, as_attention, fits, rows_of_a_block
from tunebank.schedule.factor import Panel
from tunebank.schedule.pointwise import Kept, begin_program, put, store_steps, unravelled
from tunebank.schedule.product import Product
from tunebank.schedule.product_program import ProductProgram
from tunebank.schedule.rows import RowProgram
from tunebank.schedule.trace import Trace

_PAGE_VALUES = 256
"""Rows of scores that lie a multiple of so many apart share sets of the nearest cache."""


def attention_module(kernel: Kernel, device: Device, trace: Trace) -> ir.IRModule:
    """The kernel as a program.

    Raises:
        ValueError: the kernel is not of the kind, or the parameters don't fit it.
    """
    parameters = Parameters.of(trace)
    found = as_attention(kernel)
    if found is None:
        raise ValueError("no attention")
    if not fits(found, device, parameters):
        raise ValueError(f"{parameters} don't fit the kernel")
    return _program(found, device.vector_lanes, parameters)


def _program(found: Attention, lanes: int, given: Parameters) -> ir.IRModule:
    scores, output, weights = found.scores, found.output, found.weights
    block = rows_of_a_block(found, given)
    extents = [*found.heads, given.parts]
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        buffers = begin_program(found.kernel)
        first, second = (_Sum(one, block, lanes, given, buffers) for one in (scores, output))
        first.prepare()
        with T.parallel(0, math.prod(extents)) as task:
            *head, part = unravelled(task, extents)
            panels = [one.panels(head) for one in (first, second)]
            held = T.alloc_buffer((block, _apart(weights.length, lanes)), "float32")
            each = given.blocks // given.parts
            with T.serial(0, each) as number:
                # A name of its own: TVM divides by zero where it simplifies the sum.
                top = T.bind(tirx.min((part * each + number) * block, found.rows - block))
                kept = Kept(held, lambda place: (place[-2] - top, place[-1]))
                own = {found.between: kept, weights.blocks[-1].result: kept}
                first.write(head, top, panels[0], {found.between: kept})
                with T.serial(0, block) as row:
                    RowProgram(weights, lanes, {**buffers, **own}).write([*head, top + row])
                second.write(head, top, panels[1], own)
    return ir.IRModule({"main": builder.get()})


def _apart(length: int, lanes: int) -> int:
    """How far rows of scores lie apart: whole vectors, and not a page."""
    apart = math.ceil(length / lanes) * lanes
    return apart if apart % _PAGE_VALUES else apart + lanes


class _Sum(ProductProgram):
    """Writes one of the two products for a block of rows."""

    def __init__(
        self,
        product: Product,
        block: int,
        lanes: int,
        given: Parameters,
        buffers: Mapping[Any, Any],
    ) -> None:
        assert product.row is not None
        extents = list(product.extents)
        extents[product.row] = block
        limited = replace(product, extents=tuple(extents))
        super().__init__(limited, lanes=lanes, rows=given.rows, vectors=given.vectors)
        self._buffers = dict(buffers)
        self._top: Any = 0

    def prepare(self) -> None:
        """Computes what X is read from, once and for all."""
        self._prepare_x()

    def panels(self, head: Sequence[Any]) -> Callable[[Any], Panel]:
        """All panels of a head, laid out; each by its group of columns."""
        count = math.prod(self._factor.extents)
        held = T.alloc_buffer((self._groups, count, self._columns), "float32")
        with T.serial(0, self._groups) as group:

            def store(value: Any, place: list[Any]) -> None:
                T.buffer_store(held, value, [group, *place])

            self._copy_w(self._at_head(head), self._first_column(group), store)
        return lambda group: lambda number, lane: held[group, number, lane]

    def write(
        self,
        head: Sequence[Any],
        top: Any,
        panels: Callable[[Any], Panel],
        kept: Mapping[Any, Any],
    ) -> None:
        """Writes the rows of a block, from `top` on.

        Args:
            head: which head.
            top: the first row.
            panels: see `panels`.
            kept: by buffer of the kernel, that of which the block is kept.
        """
        self._top = top
        self._buffers.update(kept)
        with T.serial(0, self._groups) as group:
            self._rows(self._at_head(head), self._first_column(group), panels(group))

    def _at_head(self, head: Sequence[Any]) -> dict[Any, Any]:
        product = self._product
        return {product.axes[p]: at for p, at in zip(product.shared, head, strict=True)}

    def _at_row(self, axes: Mapping[Any, Any], row: Any) -> dict[Any, Any]:
        return super()._at_row(axes, self._top + row)

    def _finish(self, axes: Mapping[Any, Any], column: Any, lane: Any, total: Any) -> None:
        """The product's own steps on a vector of results."""
        product = self._product
        known = {**axes, product.axes[product.column]: column + lane}
        place = [known[axis] for axis in product.axes if axis in known]
        if product.result in self._buffers:
            put(self._buffers[product.result], total, place)
        store_steps(product.steps, place, {product.result: total}, self._buffers)
