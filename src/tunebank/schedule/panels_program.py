"""The program of a Panels schedule; see `panels.py`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tvm import ir, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T  # noqa: N812

from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.schedule.factor import Panel
from tunebank.schedule.panels import Parameters, fits, is_by_lines, lines_of_a_pass
from tunebank.schedule.pointwise import begin_program, store_steps, unravelled
from tunebank.schedule.product import Product, as_product
from tunebank.schedule.product_program import ProductProgram
from tunebank.schedule.trace import Trace


def panels_module(kernel: Kernel, device: Device, trace: Trace) -> ir.IRModule:
    """The kernel as a program.

    Raises:
        ValueError: the kernel is not of the kind, or the parameters don't fit it.
    """
    parameters = Parameters.of(trace)
    found = as_product(kernel)
    if found is None:
        raise ValueError("no sum of products")
    if not fits(found, device, parameters):
        raise ValueError(f"{parameters} don't fit the kernel")
    return _Program(found, device.vector_lanes, parameters).module()


class _Program(ProductProgram):
    """Writes the program of one kernel under one set of parameters."""

    def __init__(self, product: Product, lanes: int, given: Parameters) -> None:
        super().__init__(product, lanes=lanes, rows=given.rows, vectors=given.vectors)
        self._parts = given.parts
        self._lines = lines_of_a_pass(product, given)
        self._line: Any = 0
        """The first line of a pass."""

    def module(self) -> ir.IRModule:
        """The program."""
        product = self._product
        shared = [product.extents[position] for position in product.shared]
        with IRBuilder() as builder, T.prim_func(s_tir=True):
            self._buffers = begin_program(product.kernel)
            self._pack()
            self._prepare_x()
            by_lines = is_by_lines(product)
            shares = (self._parts, self._groups) if by_lines else (self._groups, self._parts)
            extents = [*shared, *shares]
            with T.parallel(0, math.prod(extents)) as task:
                *place, outer, inner = unravelled(task, extents)
                part, group = (outer, inner) if by_lines else (inner, outer)
                axes = {product.axes[p]: at for p, at in zip(product.shared, place, strict=True)}
                first = self._first_column(group)
                panel = self._panel(axes, group, first)
                self._part(part, axes, first, panel)
        return ir.IRModule({"main": builder.get()})

    def _part(self, part: Any, axes: Mapping[Any, Any], first: Any, panel: Panel) -> None:
        """The lines of one part, as many at a time as go through a panel in one pass."""
        passes, parts = self._product.count(self._product.others) // self._lines, self._parts

        def bound(index: Any) -> Any:
            return tirx.floordiv(index * passes, parts) if parts > 1 else index * passes

        start, stop = bound(part), bound(part + 1)
        with T.serial(0, stop - start) as number:
            self._line = (start + number) * self._lines
            self._rows(axes, first, panel, lines=self._lines)

    def _at_row(self, axes: Mapping[Any, Any], row: Any) -> dict[Any, Any]:
        """The place of a row of a pass: a line along the axes that W does not have, and a row."""
        product, line = self._product, self._line
        if self._lines > 1:
            line, row = line + row // product.rows, row % product.rows
        place = unravelled(line, [product.extents[position] for position in product.others])
        names = [product.axes[position] for position in product.others]
        return super()._at_row({**axes, **dict(zip(names, place, strict=True))}, row)

    def _finish(self, axes: Mapping[Any, Any], column: Any, lane: Any, total: Any) -> None:
        """The kernel's own steps on a vector of results."""
        product = self._product
        known = {**axes, product.axes[product.column]: column + lane}
        place = [known[axis] for axis in product.axes if axis in known]
        if product.result in self._buffers:
            T.buffer_store(self._buffers[product.result], total, place)
        store_steps(product.steps, place, {product.result: total}, self._buffers)
