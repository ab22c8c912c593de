"""Concatenations and their like, piece by piece.

    out[i, j] = if_then_else(81 <= j, c[i, j - 81], if_then_else(2 <= j, sigmoid(b[i, j - 2]), ...))

Where an element comes from depends on its place alone. The result is taken apart into boxes in
which every such condition is known; in each of them the elements are computed in whole vectors,
without a condition, and nothing is computed for another place. MetaSchedule's programs ask the
conditions for each element, and compute what every branch reads: a detector's boxes, decoded from
three scales, take 1600 µs so, and 120 µs in pieces (a Zen 4 with 2 threads), concatenations of
channels half. So do reshapes and transpositions in a row, whose indices cancel out: a tenth to a
half. A schedule of this kind is a trace of one step, `Pieces`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tvm import ir, sym, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T  # noqa: N812

from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.kernel.expressions import expressions, loads
from tunebank.schedule.pointwise import (
    Step,
    as_step,
    begin_program,
    rebuilt,
    unravelled,
    weights_of,
)
from tunebank.schedule.trace import Trace, one_step

KIND = "Pieces"

_MOST_PIECES = 32
_MOST_LOADS = 1000
"""Of an element: what another block computes is written anew for each use; LLVM merges them."""
_SOME = 3
"""Operations for each element."""
_WORTH_THREADS = 4096
"""Elements that other threads are woken for."""
_WIDE = 4
"""Vectors that are computed side by side: one alone would wait for each of its operations."""

_Box = tuple[tuple[int, int], ...]
"""For each axis where it begins and ends."""


@dataclass(frozen=True)
class _Piece:
    """A box of the result, and its elements' value, an expression of the result's axes."""

    box: _Box
    value: Any


@dataclass(frozen=True)
class _Pieces:
    """A kernel whose result is computed in pieces."""

    kernel: Kernel
    result: Any
    axes: tuple[Any, ...]
    pieces: tuple[_Piece, ...]
    is_in_rows: bool


class _UndecidedError(Exception):
    """A condition holds in a part of a box: it may be split along an axis, at a place."""

    def __init__(self, axis: int, at: int) -> None:
        super().__init__()
        self.axis = axis
        self.at = at


class _TooLargeError(Exception):
    """What is computed in place would be computed too often."""


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
    elements = math.prod(int(extent) for extent in found.result.shape)
    is_sure = found.is_in_rows or kernel.flops >= _SOME * elements
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
        parameters = begin_program(kernel)
        for _, pieces in itertools.groupby(found.pieces, key=lambda piece: piece.box[:-1]):
            _write(found, list(pieces), parameters, device.vector_lanes)
    return ir.IRModule({"main": builder.get()})


@lru_cache(maxsize=512)
def _as_pieces(kernel: Kernel) -> _Pieces | None:
    sites = kernel.sites[1:]
    steps = [as_step(site) for site in sites]
    if not steps or None in steps or any(site.extents is None for site in sites):
        return None
    *before, last = (step for step in steps if step is not None)
    params = list(kernel.func.params)
    producers = {step.result: step for step in before}
    if last.result not in params or set(producers) & set(params) or not last.axes:
        return None
    box = tuple((0, extent) for extent in sites[-1].extents or ())
    pieces = _taken_apart(last, box, producers)
    is_in_rows = all(_is_in_rows(piece, last.axes[-1]) for piece in pieces)
    if len(pieces) > 1 or (pieces and before and is_in_rows):
        return _Pieces(kernel, last.result, last.axes, pieces, is_in_rows)
    return None


def _is_in_rows(piece: _Piece, axis: Any) -> bool:
    """Whether all that is read lies side by side where results do."""
    for load in loads(piece.value):
        if not load.indices:
            continue
        *others, last = load.indices
        if any(part.same_as(axis) for index in others for part in expressions(index)):
            return False
        found = sym.detect_linear_equation(last, [axis])
        if not found or not isinstance(found[0], tirx.IntImm) or int(found[0]) > 1:
            return False
    return True


def _taken_apart(last: Step, whole: _Box, producers: Mapping[Any, Step]) -> tuple[_Piece, ...]:
    """The pieces; none if there are too many, or if one is too large."""
    waiting, pieces = [whole], list[_Piece]()
    while waiting:
        box = waiting.pop()
        if len(pieces) + len(waiting) >= _MOST_PIECES:
            return ()
        try:
            pieces.append(_Piece(box, _Resolver(last.axes, box, producers).value(last)))
        except _TooLargeError:
            return ()
        except _UndecidedError as found:
            begin, end = box[found.axis]
            for part in ((begin, found.at), (found.at, end)):
                waiting.append((*box[: found.axis], part, *box[found.axis + 1 :]))
    return tuple(sorted(pieces, key=lambda piece: piece.box))


class _Resolver:
    """Computes an element in place, in a box in which all conditions are known."""

    def __init__(self, axes: Sequence[Any], box: _Box, producers: Mapping[Any, Step]) -> None:
        self._axes = axes
        self._box = box
        self._producers = producers
        self._loads = 0
        self._analyzer = sym.Analyzer()
        for axis, (begin, end) in zip(axes, box, strict=True):
            self._analyzer.bind(axis, ir.Range(begin, end))

    def value(self, step: Step) -> Any:
        """What a step computes at its own axes.

        Raises:
            _UndecidedError: a condition is not known all over the box.
            _TooLargeError: the value has too many parts.
        """
        return self._at(step, list(step.axes))

    def _at(self, step: Step, place: Sequence[Any]) -> Any:
        axes = dict(zip(step.axes, place, strict=True))
        return rebuilt(step.value, axes, self._load, self._decide)

    def _load(self, buffer: Any, place: list[Any]) -> Any:
        self._loads += 1
        if self._loads > _MOST_LOADS:
            raise _TooLargeError
        place = [self._analyzer.simplify(index) for index in place]
        step = self._producers.get(buffer)
        return buffer[tuple(place)] if step is None else self._at(step, place)

    def _decide(self, condition: Any) -> bool | None:
        condition = self._analyzer.simplify(condition)
        if isinstance(condition, tirx.IntImm):
            return bool(condition.value)
        if next(loads(condition), None) is None:
            for axis, at in self._splits(condition):
                raise _UndecidedError(axis, at)
        return None

    def _splits(self, condition: Any) -> Iterator[tuple[int, int]]:
        """Where the box may be split so that parts of the condition are known."""
        if isinstance(condition, (tirx.And, tirx.Or)):
            yield from self._splits(condition.a)
            yield from self._splits(condition.b)
        if not isinstance(condition, (tirx.LT, tirx.LE, tirx.GT, tirx.GE)):
            return
        found = weights_of(condition.b - condition.a, self._axes)
        if found is None:
            return
        *weights, base = found
        used = [axis for axis, weight in enumerate(weights) if weight]
        if len(used) != 1 or abs(weights[used[0]]) != 1:
            return
        begin, end = self._box[used[0]]
        # b - a changes its sign where the axis is at -base or base; the sides differ by one place.
        zero = -base * weights[used[0]]
        for at in (zero, zero + 1):
            if begin < at < end:
                yield used[0], at


def _write(
    found: _Pieces, pieces: Sequence[_Piece], parameters: Mapping[Any, Any], lanes: int
) -> None:
    """Computes pieces that lie side by side along the last axis, row by row, in vectors."""
    *outer, _ = pieces[0].box
    extents = [end - begin for begin, end in outer]
    count = math.prod(extents) * sum(end - begin for *_, (begin, end) in (p.box for p in pieces))
    loop = T.parallel if count >= _WORTH_THREADS else T.serial
    with loop(0, math.prod(extents)) as number:
        inner = unravelled(number, extents)
        row = [begin + at for (begin, _), at in zip(outer, inner, strict=True)]
        for piece in pieces:
            start, end = piece.box[-1]
            for width in _widths(lanes):
                count = (end - start) // width
                if count:
                    with T.serial(0, count) as group, T.vectorized(0, width) as lane:
                        _store(found, piece, [*row, start + group * width + lane], parameters)
                start += count * width


def _store(
    found: _Pieces, piece: _Piece, place: Sequence[Any], parameters: Mapping[Any, Any]
) -> None:
    axes = dict(zip(found.axes, place, strict=True))
    value = rebuilt(piece.value, axes, lambda buffer, at: parameters[buffer][tuple(at)])
    T.buffer_store(parameters[found.result], value, list(place))


def _widths(lanes: int) -> Iterator[int]:
    """From several vectors at once to single elements."""
    yield _WIDE * lanes
    while lanes:
        yield lanes
        lanes //= 2
