"""The program of a Panels schedule; see `panels.py`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tvm import ir, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T  # noqa: N812

from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.schedule.panels import Parameters, Product, as_product, fits, uneven
from tunebank.schedule.pointwise import (
    begin_program,
    element,
    rebuilt,
    store_steps,
    unravelled,
)


def panels_module(kernel: Kernel, device: Device, parameters: Parameters) -> ir.IRModule:
    """The kernel as a program.

    Raises:
        ValueError: the kernel is not of the kind, or the parameters don't fit it.
    """
    found = as_product(kernel)
    if found is None:
        raise ValueError("no sum of products")
    if not fits(found, device, parameters):
        raise ValueError(f"{parameters} don't fit the kernel")
    return _Program(found, device.vector_lanes, parameters).module()


class _Program:
    """Writes the program of one kernel under one set of parameters."""

    def __init__(self, product: Product, lanes: int, parameters: Parameters) -> None:
        self._product = product
        self._lanes = lanes
        self._given = parameters
        self._columns = lanes * parameters.vectors
        self._wanted = product.extents[product.column]
        self._groups = math.ceil(self._wanted / self._columns)
        self._buffers: dict[Any, Any] = {}
        self._producers = dict(product.producers)  # those that are computed in place

    def module(self) -> ir.IRModule:
        """The program."""
        product = self._product
        shared = [product.extents[position] for position in product.shared]
        with IRBuilder() as builder, T.prim_func():
            self._buffers = begin_program(product.kernel)
            if product.x.source in self._producers:
                self._compute(product.x.source)
            extents = [*shared, self._groups, self._given.parts]
            with T.parallel(0, math.prod(extents)) as task:
                *place, group, part = unravelled(task, extents)
                axes = {product.axes[p]: at for p, at in zip(product.shared, place, strict=True)}
                first = self._first_column(group)
                panel = self._panel(axes, first)
                self._others(axes, part, lambda known: self._rows(known, first, panel))
        return ir.IRModule({"main": builder.get()})

    def _first_column(self, group: Any) -> Any:
        """Where a group of columns begins; the last overlaps the one before it, if it must."""
        if self._wanted % self._columns == 0:
            return group * self._columns
        return tirx.min(group * self._columns, self._wanted - self._columns)

    def _compute(self, buffer: Any) -> None:
        """Computes what X is read from, such as a padded image, once and for all."""
        step = self._producers.pop(buffer)
        *extents, last = (int(extent) for extent in buffer.shape)
        held = T.alloc_buffer((*extents, last), str(buffer.dtype))
        with T.parallel(0, math.prod(extents)) as number:
            place = unravelled(number, extents)

            def store(column: Any) -> None:
                at = [*place, column]
                axes = dict(zip(step.axes, at, strict=True))
                T.buffer_store(held, rebuilt(step.value, axes, self._load), at)

            with T.serial(0, last // self._lanes) as group, T.vectorized(0, self._lanes) as lane:
                store(group * self._lanes + lane)
            with T.serial(0, last % self._lanes) as rest:
                store(last // self._lanes * self._lanes + rest)
        self._buffers[buffer] = held

    def _panel(self, axes: Mapping[Any, Any], first: Any) -> Any:
        """W's values for a group of columns, one row for each step of the sum."""
        product = self._product
        reduced = [product.extents[position] for position in product.reduced]
        panel = T.alloc_buffer((math.prod(reduced), self._columns), "float32")
        names = [product.axes[position] for position in product.reduced]
        with T.serial(0, math.prod(reduced)) as number:
            known = {**axes, **dict(zip(names, unravelled(number, reduced), strict=True))}

            def copy(column: Any) -> None:
                place = {**known, product.axes[product.column]: first + column}
                T.buffer_store(panel, rebuilt(product.w, place, self._load), [number, column])

            self._each_vector(copy)
        return panel

    def _others(
        self, axes: Mapping[Any, Any], part: Any, act: Callable[[Mapping[Any, Any]], None]
    ) -> None:
        """Acts on each place along the axes that W does not have, those of one part."""
        product, parts = self._product, self._given.parts
        extents = [product.extents[position] for position in product.others]
        count = math.prod(extents)

        def bound(index: Any) -> Any:
            return tirx.floordiv(index * count, parts) if parts > 1 else index * count

        start, stop = bound(part), bound(part + 1)
        with T.serial(0, stop - start) as number:
            place = unravelled(start + number, extents)
            names = [product.axes[position] for position in product.others]
            act({**axes, **dict(zip(names, place, strict=True))})

    def _rows(self, axes: Mapping[Any, Any], first: Any, panel: Any) -> None:
        """All rows at a place, in tiles of two sizes."""
        begin = 0
        for count, rows in uneven(self._product.rows, self._given.rows):
            if count:
                with T.serial(0, count) as tile:
                    self._tile(axes, begin + tile * rows, rows, first, panel)
            begin += count * rows

    def _tile(self, axes: Mapping[Any, Any], top: Any, rows: int, first: Any, panel: Any) -> None:
        product = self._product
        sums = T.alloc_buffer((rows, self._columns), "float32", scope="local")
        for i in range(rows):
            self._each_vector(lambda k: T.buffer_store(sums, _zero(), [i, k]))  # noqa: B023  called here
        reduced = [product.extents[position] for position in product.reduced]
        names = [product.axes[position] for position in product.reduced]
        with T.grid(*reduced) as loops:
            steps = [loops] if len(reduced) == 1 else list(loops)
            number = _number(steps, reduced)
            for i in range(rows):
                known = {**self._at_row(axes, top + i), **dict(zip(names, steps, strict=True))}
                value = rebuilt(product.x, known, self._load)

                self._each_vector(lambda k: self._add(sums, (i, k), value, panel[number, k]))  # noqa: B023
        for i in range(rows):
            known = self._at_row(axes, top + i)
            self._each_vector(lambda k: self._finish(known, first + k, sums[i, k]))  # noqa: B023

    def _at_row(self, axes: Mapping[Any, Any], row: Any) -> dict[Any, Any]:
        if self._product.row is None:
            return dict(axes)
        return {**axes, self._product.axes[self._product.row]: row}

    def _add(self, sums: Any, place: tuple[int, Any], x: Any, w: Any) -> None:
        T.buffer_store(sums, sums[place] + x * w, list(place))

    def _finish(self, axes: Mapping[Any, Any], column: Any, total: Any) -> None:
        """The kernel's own steps on a vector of results."""
        product = self._product
        known = {**axes, product.axes[product.column]: column}
        place = [known[axis] for axis in product.axes if axis in known]
        if product.result in self._buffers:
            T.buffer_store(self._buffers[product.result], total, place)
        store_steps(product.steps, place, {product.result: total}, self._buffers)

    def _each_vector(self, act: Callable[[Any], None]) -> None:
        for vector in range(self._given.vectors):
            with T.vectorized(0, self._lanes) as lane:
                act(vector * self._lanes + lane)

    def _load(self, buffer: Any, place: list[Any]) -> Any:
        return element(buffer, place, lambda b, at: self._buffers[b][tuple(at)], self._producers)


def _number(place: Sequence[Any], extents: Sequence[int]) -> Any:
    """The number of an element, the last index running fastest."""
    number: Any = 0
    for at, extent in zip(place, extents, strict=True):
        number = number * extent + at
    return number


def _zero() -> Any:
    return tirx.const(0.0, "float32")
