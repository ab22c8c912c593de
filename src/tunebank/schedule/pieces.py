"""Concatenations and their like, piece by piece.

    out[i, j] = if_then_else(81 <= j, c[i, j - 81], if_then_else(2 <= j, sigmoid(b[i, j - 2]), ...))

Where an element comes from depends on its place alone. The result is taken apart into boxes in
which every such condition is known, see `boxes.py`; in each of them the elements are computed in
whole vectors, without a condition, and nothing is computed for another place. MetaSchedule's
programs ask the conditions for each element, and compute what every branch reads: a detector's
boxes, decoded from three scales, take 1600 µs so, and 120 µs in pieces (a Zen 4 with 2 threads),
concatenations of channels half, shuffled channels a fifth. So do reshapes, transpositions and
splits in a row, whose indices cancel out, and what is added to rows of 36: a tenth to a half. A
schedule of this kind is a trace of one step, `Pieces`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tvm import ir
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T  # noqa: N812

from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.kernel.expressions import loads
from tunebank.schedule.boxes import Box, Piece, taken_apart
from tunebank.schedule.pointwise import (
    WORTH_THREADS,
    as_step,
    begin_program,
    mentions,
    rebuilt,
    unravelled,
)
from tunebank.schedule.trace import Trace, one_step

KIND = "Pieces"

_SOME = 3
"""Operations for each element."""
_PER_COPY = 50
"""Operations for which threads are woken as soon as for the copy of an element: an exponential
counts as dozens. An LSTM's gates of 256 states are faster on one thread, those of 2048 on two."""
_WIDE = 4
"""Vectors that are computed side by side: one alone would wait for each of its operations."""


@dataclass(frozen=True)
class _Result:
    """A result of the kernel, a buffer, in pieces whose values are expressions of its axes."""

    buffer: Any
    axes: tuple[Any, ...]
    pieces: tuple[Piece, ...]

    @property
    def is_in_rows(self) -> bool:
        """Whether all that is read lies side by side where results do."""
        return all(piece.is_in_rows(self.axes[-1]) for piece in self.pieces)

    @property
    def is_spread(self) -> bool:
        """Whether something that is read stands for several elements of the result."""
        extents = zip(self.axes, self.buffer.shape, strict=True)
        long = [axis for axis, extent in extents if int(extent) > 1]
        return any(
            not all(mentions(load.indices, axis) for axis in long)
            for piece in self.pieces
            for load in piece.value.loads
        )


@dataclass(frozen=True)
class _Pieces:
    """A kernel whose results are computed in pieces.

    Attributes:
        kernel: the kernel, whose buffers the others name.
        results: the results.
        reads_through: whether a block reads another one's result.
    """

    kernel: Kernel
    results: tuple[_Result, ...]
    reads_through: bool

    @property
    def is_in_rows(self) -> bool:
        """Whether all that is read lies side by side where results do."""
        return all(result.is_in_rows for result in self.results)

    @property
    def operations(self) -> float:
        """For each element of the results."""
        shapes = [one.buffer.shape for one in self.results]
        return self.kernel.flops / sum(math.prod(map(int, shape)) for shape in shapes)

    @property
    def is_worthwhile(self) -> bool:
        """Whether conditions or indices go away, or threads are not woken for each small result."""
        if any(len(result.pieces) > 1 for result in self.results):
            return True
        spreads = any(result.is_spread for result in self.results)
        return self.is_in_rows and (self.reads_through or spreads or len(self.results) > 1)


@dataclass(frozen=True)
class _Rows:
    """Pieces that lie side by side along the last axis, and where they are along the others."""

    result: _Result
    outer: Box
    pieces: tuple[Piece, ...]

    @property
    def extents(self) -> list[int]:
        """How many rows along each axis."""
        return [end - begin for begin, end in self.outer]

    @property
    def length(self) -> int:
        """Elements of a row, of all pieces."""
        return sum(end - begin for *_, (begin, end) in (piece.box for piece in self.pieces))


def pieces_trace(kernel: Kernel, *, clearly: bool) -> Trace | None:
    """The schedule, if the kernel's result has several pieces, or is read through some blocks.

    Args:
        kernel: the kernel.
        clearly: whether it must be sure to pay: where some operations are done for each element,
            or where what is read lies side by side, as results do.
    """
    found = _as_pieces(kernel)
    if found is None:
        return None
    is_sure = found.is_in_rows or found.operations >= _SOME
    return one_step(KIND) if is_sure or not clearly else None


def pieces_module(kernel: Kernel, device: Device) -> ir.IRModule:
    """The kernel as a program.

    Raises:
        ValueError: its result has no pieces.
    """
    found = _as_pieces(kernel)
    if found is None:
        raise ValueError("no result in pieces")
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        parameters = begin_program(found.kernel)
        for _, rows in itertools.groupby(_rows(found), key=lambda one: one.extents):
            work = max(1.0, found.operations / _PER_COPY)
            _write(list(rows), parameters, device.vector_lanes, work=work)
    return ir.IRModule({"main": builder.get()})


@lru_cache(maxsize=512)
def _as_pieces(kernel: Kernel) -> _Pieces | None:
    sites = kernel.sites[1:]
    steps = [step for site in sites if (step := as_step(site)) is not None and step.axes]
    if not steps or len(steps) < len(sites) or any(site.extents is None for site in sites):
        return None
    params = set(kernel.func.params)
    producers = {step.result: step for step in steps if step.result not in params}
    written = {step.result for step in steps} - set(producers)
    if any(load.source in written for step in steps for load in loads(step.value)):
        return None
    results = tuple(
        _Result(step.result, step.axes, taken_apart(step, site.extents or (), producers))
        for site, step in zip(sites, steps, strict=True)
        if step.result in written
    )
    found = _Pieces(kernel, results, bool(producers))
    return found if all(result.pieces for result in results) and found.is_worthwhile else None


def _rows(found: _Pieces) -> Iterator[_Rows]:
    for result in found.results:
        for outer, pieces in itertools.groupby(result.pieces, key=lambda piece: piece.box[:-1]):
            yield _Rows(result, outer, tuple(pieces))


def _write(
    alike: Sequence[_Rows], parameters: Mapping[Any, Any], lanes: int, *, work: float
) -> None:
    """Computes rows of equal extents in one loop, each row in vectors.

    `work` is the time that an element takes, relative to that of a copy.
    """
    extents = alike[0].extents
    elements = math.prod(extents) * sum(rows.length for rows in alike)
    loop = T.parallel if elements * work >= WORTH_THREADS else T.serial
    with loop(0, math.prod(extents)) as number:
        inner = unravelled(number, extents)
        for rows in alike:
            row = [begin + at for (begin, _), at in zip(rows.outer, inner, strict=True)]
            for piece in rows.pieces:
                _write_row(rows.result, piece, row, parameters, lanes)


def _write_row(
    result: _Result, piece: Piece, row: Sequence[Any], parameters: Mapping[Any, Any], lanes: int
) -> None:
    """Computes a piece's part of a row, in vectors as long as they go."""
    start, length = 0, piece.box[-1][1]
    for width in _widths(lanes):
        count = (length - start) // width
        if count:
            with T.serial(0, count) as group, T.vectorized(0, width) as lane:
                _store(result, piece, [*row, start + group * width + lane], parameters)
        start += count * width


def _store(
    result: _Result, piece: Piece, place: Sequence[Any], parameters: Mapping[Any, Any]
) -> None:
    known = dict(zip(result.axes, place, strict=True))

    def again(expression: Any) -> Any:
        return rebuilt(expression, known, lambda buffer, at: parameters[buffer][tuple(at)])

    for variable, expression in piece.value.bound:
        known[variable] = T.bind(again(expression))
    value = again(piece.value.expression)
    T.buffer_store(parameters[result.buffer], value, piece.place(place))


def _widths(lanes: int) -> Iterator[int]:
    """From several vectors at once to single elements."""
    yield _WIDE * lanes
    while lanes:
        yield lanes
        lanes //= 2
