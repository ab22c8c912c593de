"""Kernels that go along rows, softmax and layer norm among them, as one pass over each row.

Every block of such a kernel computes, for each row, a value, or a value for each of its columns, or
reduces the columns to a value:

    m[r]    = max over k of x[r, k]         parallel over rows:
    e[r, k] = exp(x[r, k] - m[r])             each block in turn, in whole vectors,
    s[r]    = sum over k of e[r, k]           what is between them in the near cache
    y[r, k] = e[r, k] / s[r]

MetaSchedule's own space keeps each block a pass over all rows, or computes values anew for each
use. A schedule of this kind is a trace of one step, `Rows`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tvm import ir, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T  # noqa: N812

from tunebank.device import Device
from tunebank.kernel import BlockSite, Kernel
from tunebank.kernel.expressions import loads
from tunebank.schedule.pointwise import (
    as_reduction,
    begin_program,
    mentions,
    put,
    rebuilt,
    same,
    unravelled,
)
from tunebank.schedule.trace import Trace, one_step

KIND = "Rows"
_WIDE = 4
"""Vectors that are computed side by side: a reduction would else wait for each of its steps."""
_ON_STACK = 8192
"""Elements of an intermediate row that are kept on the thread's stack; others are allocated."""


@dataclass(frozen=True)
class RowBlock:
    """A block that goes along rows.

    Attributes:
        result: the buffer that it writes.
        row_axes: its axes that tell the row.
        column_axis: its axis along the row; None if it has none.
        value: what it computes; of a reduction, what is combined.
        combine: the combiner of a reduction, an expression's type; else None.
        identity: what a reduction begins with.
    """

    result: Any
    row_axes: tuple[Any, ...]
    column_axis: Any
    value: Any
    combine: Any = None
    identity: Any = None


@dataclass(frozen=True)
class Rows:
    """Blocks that go along rows: the extents that tell a row, its length, the blocks."""

    extents: tuple[int, ...]
    length: int
    blocks: tuple[RowBlock, ...]


def rows_trace(kernel: Kernel) -> Trace | None:
    """The schedule, if the kernel goes along rows."""
    return one_step(KIND) if _as_rows(kernel) is not None else None


def rows_module(kernel: Kernel, device: Device) -> ir.IRModule:
    """The kernel as a program.

    Raises:
        ValueError: the kernel does not go along rows.
    """
    found = _as_rows(kernel)
    if found is None:
        raise ValueError("not a kernel that goes along rows")
    own, rows = found
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        program = RowProgram(rows, device.vector_lanes, begin_program(own))
        with T.parallel(0, math.prod(rows.extents)) as number:
            program.write(unravelled(number, rows.extents))
    return ir.IRModule({"main": builder.get()})


@lru_cache(maxsize=512)
def _as_rows(kernel: Kernel) -> tuple[Kernel, Rows] | None:
    """The kernel's blocks, and the kernel whose buffers they name: equal ones get one answer."""
    rows = as_rows(kernel.sites[1:])
    return (kernel, rows) if rows is not None else None


def as_rows(sites: Sequence[BlockSite]) -> Rows | None:
    """Some blocks, if they go along rows; else None."""
    reduction = next((site for site in sites if site.reduces), None)
    if reduction is None or reduction.extents is None:
        return None
    *extents, length = reduction.extents
    blocks = []
    for site in sites:
        block = _block(site, tuple(extents), length)
        if block is None:
            return None
        blocks.append(block)
    found = Rows(tuple(extents), length, tuple(blocks))
    return found if _are_in_row(found) else None


def _block(site: BlockSite, extents: tuple[int, ...], length: int) -> RowBlock | None:
    store = site.block.body
    if not isinstance(store, tirx.BufferStore):
        return None
    axes = tuple(axis.var for axis in site.block.iter_vars)
    count = len(extents)
    spatial = tuple(range(count))
    if site.reduces:
        if site.extents != (*extents, length) or site.spatial_loops != spatial:
            return None
        return _reduction(site)
    if site.extents == (*extents, length) and same(store.indices, axes):
        return RowBlock(store.buffer, axes[:count], axes[count], store.value)
    if site.extents == extents and same(store.indices, axes):
        return RowBlock(store.buffer, axes, None, store.value)
    return None


def _reduction(site: BlockSite) -> RowBlock | None:
    found = as_reduction(site)
    if found is None:
        return None
    (column,) = found.reduced
    return RowBlock(found.result, found.axes, column, found.value, found.combine, found.identity)


def _are_in_row(found: Rows) -> bool:
    """Whether every block reads what belongs to its row, in order.

    Results of other blocks in its own row, and at its own column; arguments with the column last,
    and, where they are reduced, of this row alone: a matrix product reads rows of two.
    """
    known: dict[Any, bool] = {}
    for block in found.blocks:
        pairs = zip(block.row_axes, found.extents, strict=True)
        rows = [axis for axis, extent in pairs if extent > 1]
        for load in loads(block.value):
            if load.source in known:
                place = [*block.row_axes, *([block.column_axis] if known[load.source] else [])]
                fits = None not in place and same(load.indices, place)
            else:
                fits = not mentions(load.indices[:-1], block.column_axis)
                if block.combine is not None:
                    fits = fits and all(mentions(load.indices, axis) for axis in rows)
            if not fits:
                return False
        known[block.result] = block.column_axis is not None and block.combine is None
    return str(found.blocks[-1].result.dtype) == "float32"


class RowProgram:
    """Writes the part of a program that computes a row.

    Args:
        rows: the blocks.
        lanes: elements of a vector.
        buffers: by buffer of the kernel, what is read and written outside of the row.
    """

    def __init__(self, rows: Rows, lanes: int, buffers: Mapping[Any, Any]) -> None:
        self._rows = rows
        self._lanes = lanes
        self._buffers = buffers
        self._held: dict[Any, Any] = {}

    def write(self, place: list[Any]) -> None:
        """Writes the blocks in turn, for the row at a place."""
        for block in self._rows.blocks:
            self._write(block, place)

    def _write(self, block: RowBlock, place: list[Any]) -> None:
        if block.combine is not None:
            self._reduce(block, place)
        elif block.column_axis is None:
            self._hold(block, 1)
            self._store(block, self._value(block, place, None), place, 0)
        else:
            self._hold(block, self._rows.length)
            self._along(lambda k: self._store(block, self._value(block, place, k), [*place, k], k))

    def _hold(self, block: RowBlock, length: int) -> None:
        """Room for an intermediate result of the row."""
        if block.result not in self._buffers:
            dtype = str(block.result.dtype)
            scope = "local" if length <= _ON_STACK else "global"
            self._held[block.result] = T.alloc_buffer((length,), dtype, scope=scope)

    def _store(self, block: RowBlock, value: Any, place: list[Any], column: Any) -> None:
        if block.result in self._held:
            T.buffer_store(self._held[block.result], value, [column])
        else:
            put(self._buffers[block.result], value, place)

    def _value(self, block: RowBlock, place: list[Any], column: Any) -> Any:
        axes: Mapping[Any, Any] = dict(zip(block.row_axes, place, strict=True))
        if block.column_axis is not None:
            axes = {**axes, block.column_axis: column}
        wide = {b.result for b in self._rows.blocks if b.column_axis is not None and not b.combine}

        def load(buffer: Any, at: list[Any]) -> Any:
            if buffer in self._held:
                return self._held[buffer][column if buffer in wide else 0]
            return self._buffers[buffer][tuple(at)]

        return rebuilt(block.value, axes, load)

    def _reduce(self, block: RowBlock, place: list[Any]) -> None:
        self._hold(block, 1)
        total = T.alloc_buffer((1,), str(block.result.dtype), scope="local")
        T.buffer_store(total, block.identity, [0])
        for start, width, count in self._segments():
            part = T.alloc_buffer((width,), str(block.result.dtype), scope="local")

            def begin(v: Any, into: Any = part) -> None:
                T.buffer_store(into, block.identity, [v])

            self._vector(width, begin)
            with T.serial(0, count) as step:

                def add(v: Any, at: Any = start + step * width, into: Any = part) -> None:
                    value = self._value(block, place, at + v)
                    T.buffer_store(into, block.combine(into[v], value), [v])

                self._vector(width, add)
            self._fold(part, width, block.combine)
            T.buffer_store(total, block.combine(total[0], part[0]), [0])
        self._store(block, total[0], place, 0)

    def _fold(self, part: Any, width: int, combine: Any) -> None:
        """Halves a vector until one element is left."""
        while width > 1:
            width //= 2

            def fold(v: Any, half: int = width) -> None:
                T.buffer_store(part, combine(part[v], part[v + half]), [v])

            self._vector(width, fold)

    def _along(self, act: Callable[[Any], None]) -> None:
        """Acts on all columns, in vectors."""
        for start, width, count in self._segments():
            with T.serial(0, count) as step:

                def at(v: Any, first: Any = start + step * width) -> None:
                    act(first + v)

                self._vector(width, at)

    def _vector(self, width: int, act: Callable[[Any], None]) -> None:
        if width == 1:
            act(0)
            return
        with T.vectorized(0, width) as lane:
            act(lane)

    def _segments(self) -> list[tuple[int, int, int]]:
        """The columns in steps as wide as still fit: where they start, how wide, how many."""
        segments, start = [], 0
        for width in (_WIDE * self._lanes, self._lanes, 1):
            count = (self._rows.length - start) // width
            if count:
                segments.append((start, width, count))
                start += count * width
        return segments
