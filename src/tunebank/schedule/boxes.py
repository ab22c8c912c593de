"""An element of a result as an expression of its place, box by box.

    out[i, c] = if_then_else(c % 2 * 4 + c // 2 < 4, a[i, c % 2 * 4 + c // 2], b[i, ...])

    c = 2 q:        out[i, c] = a[i, q]
    c = 2 q + 1:    out[i, c] = b[i, q]

Where an element comes from depends on its place alone. The result is taken apart into boxes in
which every such condition is known; along the last axis also where a remainder or a quotient of it
tells places apart: a box then has every second element, or ends where the next head of attention
begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tvm import ir, sym, tirx

from tunebank.kernel.expressions import expressions, loads
from tunebank.schedule.pointwise import Step, has_condition, mentions, rebuilt, weights_of

_MOST_PIECES = 32
_MOST_LOADS = 4000
"""Of an element: TVM writes anew for each use what is bound, and merges it again later."""

Box = tuple[tuple[int, int], ...]
"""For each axis where it begins and ends."""


@dataclass(frozen=True)
class Value:
    """An element, an expression of its place, and what that mentions by name.

    Attributes:
        bound: variables, each with its expression, which may mention those before it.
        expression: the element.
    """

    bound: tuple[tuple[Any, Any], ...]
    expression: Any

    @property
    def parts(self) -> list[Any]:
        """All expressions."""
        return [*(part for _, part in self.bound), self.expression]

    @property
    def loads(self) -> list[Any]:
        """All that is read."""
        return [load for part in self.parts for load in loads(part)]


@dataclass(frozen=True)
class Piece:
    """A box of the result, and the value of its elements by the result's axes.

    Along the last axis it has every `step`-th element from `first` on, and the box counts them:
    there it begins at 0.
    """

    box: Box
    value: Value
    step: int
    first: int

    def place(self, axes: Sequence[Any]) -> list[Any]:
        """Indices in the result."""
        return place_of(axes, self.step, self.first)

    def is_in_rows(self, axis: Any) -> bool:
        """Whether all that is read lies side by side along an axis, the result's last."""
        for load in self.value.loads:
            if not load.indices:
                continue
            *others, last = load.indices
            if mentions(others, axis):
                return False
            found = sym.detect_linear_equation(last, [axis])
            if not found or not isinstance(found[0], tirx.IntImm) or int(found[0]) > 1:
                return False
        return True


def place_of(axes: Sequence[Any], step: int, first: int) -> list[Any]:
    """Indices where the last counts every `step`-th element from `first` on."""
    *outer, last = axes
    return [*outer, last * step + first]


class _UndecidedError(Exception):
    """A condition holds in a part of a box: it may be split along an axis, at a place."""

    def __init__(self, axis: int, at: int) -> None:
        super().__init__()
        self.axis = axis
        self.at = at


class _TooLargeError(Exception):
    """What is computed in place would be computed too often, or in too many pieces."""


def taken_apart(
    last: Step, extents: Sequence[int], producers: Mapping[Any, Step]
) -> tuple[Piece, ...]:
    """The pieces of a result; none if there are too many, or if one is too large.

    Args:
        last: the block that writes the result.
        extents: of the result.
        producers: the other blocks, by what they write.
    """
    with suppress(_TooLargeError):
        step = _shuffle_of(last, extents, producers)
        for ends_at_edges in (True, False):
            with suppress(_TooLargeError):
                return _pieces(last, extents, producers, step, ends_at_edges=ends_at_edges)
    return ()


def _pieces(
    last: Step,
    extents: Sequence[int],
    producers: Mapping[Any, Step],
    step: int,
    *,
    ends_at_edges: bool,
) -> tuple[Piece, ...]:
    """The pieces.

    Args:
        last: as above.
        extents: as above.
        producers: as above.
        step: how many channels that lie side by side come from different groups.
        ends_at_edges: whether pieces end where a quotient of the last index changes.

    Raises:
        _TooLargeError: there are too many, or one is too large.
    """
    box = tuple((0, extent) for extent in (*extents[:-1], extents[-1] // step))
    waiting, pieces = [(box, first) for first in range(step)], list[Piece]()
    while waiting:
        box, first = waiting.pop()
        if len(pieces) + len(waiting) >= _MOST_PIECES:
            raise _TooLargeError
        resolver = _Resolver(last.axes, box, producers)
        try:
            value = resolver.value(last, place_of(last.axes, step, first))
            if ends_at_edges:
                resolver.end_at_edges(value)
        except _UndecidedError as found:
            waiting.extend(_parts(box, first, step, found))
        else:
            pieces.append(Piece(box, value, step, first))
    return tuple(sorted(pieces, key=lambda piece: (piece.box[:-1], piece.first)))


def _parts(box: Box, first: int, step: int, found: _UndecidedError) -> list[tuple[Box, int]]:
    """A box that is split, and where each part begins along the last axis."""
    before, (begin, end), after = box[: found.axis], box[found.axis], box[found.axis + 1 :]
    if after:
        parts = (begin, found.at), (found.at, end)
        return [((*before, part, *after), first) for part in parts]
    return [
        ((*before, (0, found.at)), first),
        ((*before, (0, end - found.at)), first + found.at * step),
    ]


def _shuffle_of(last: Step, extents: Sequence[int], producers: Mapping[Any, Step]) -> int:
    """How many channels that lie side by side come from different groups; 1 if none do.

    Where an element comes from then depends on the remainder of its last index.

    Raises:
        _TooLargeError: the result's value has too many parts.
    """
    box = tuple((0, extent) for extent in extents)
    value = _Resolver(last.axes, box, producers, decides=False).value(last, last.axes)
    axis, extent = last.axes[-1], extents[-1]
    found = {
        by
        for kind, index, by in _divisions(value)
        if kind is tirx.FloorMod and index.same_as(axis) and by < _MOST_PIECES
    }
    return next((step for step in sorted(found) if extent % step == 0), 1)


def _divisions(value: Value) -> Iterator[tuple[Any, Any, int]]:
    """Quotients and remainders in what is read where: which of them, of what, by what."""
    for load in value.loads:
        for index in load.indices:
            for part in expressions(index):
                is_division = isinstance(part, (tirx.FloorDiv, tirx.FloorMod))
                if is_division and isinstance(part.b, tirx.IntImm):
                    yield type(part), part.a, int(part.b)


@dataclass(frozen=True)
class _Bound:
    """A variable, what it stands for, and how much that reads."""

    variable: Any
    expression: Any
    loads: int


class _Resolver:
    """Computes an element in place, in a box in which all conditions are known."""

    def __init__(
        self, axes: Sequence[Any], box: Box, producers: Mapping[Any, Step], *, decides: bool = True
    ) -> None:
        self._axes = axes
        self._box = box
        self._producers = producers
        self._decides = decides
        self._loads = 0
        self._binds = True
        self._bound: dict[tuple[Any, str], _Bound] = {}
        self._analyzer = sym.Analyzer()
        for axis, (begin, end) in zip(axes, box, strict=True):
            self._analyzer.bind(axis, ir.Range(begin, end))

    def value(self, step: Step, place: Sequence[Any]) -> Value:
        """What a step computes at a place; what is used often in it is bound, if that may be.

        Raises:
            _UndecidedError: a condition is not known all over the box.
            _TooLargeError: the value has too many parts.
        """
        value = self._value(step, place)
        if self._decides and any(has_condition(part) for part in value.parts):
            self._binds, self._loads = False, 0
            return self._value(step, place)
        return value

    def end_at_edges(self, value: Value) -> None:
        """Sees to it that no quotient of the last index changes within the box.

        Raises:
            _UndecidedError: one does.
        """
        _, end = self._box[-1]
        for _, index, by in _divisions(value):
            weights = weights_of(index, self._axes)
            if weights is None or weights[:-1] != [*[0] * (len(self._axes) - 1), 1]:
                continue
            base = weights[-1]
            edge = base // by * by + by - base
            if edge < end:
                raise _UndecidedError(len(self._axes) - 1, edge)

    def _value(self, step: Step, place: Sequence[Any]) -> Value:
        self._bound = {}
        expression = self._at(step, place)
        bound = tuple((one.variable, one.expression) for one in self._bound.values())
        return Value(bound, expression)

    def _at(self, step: Step, place: Sequence[Any]) -> Any:
        def load(buffer: Any, at: list[Any]) -> Any:
            self._count(1)
            at = [self._analyzer.simplify(index) for index in at]
            producer = self._producers.get(buffer)
            if producer is None:
                return buffer[tuple(at)]
            if self._binds and buffer in step.read_often and "float" in str(buffer.dtype):
                return self._once(producer, at)
            return self._at(producer, at)

        axes = dict(zip(step.axes, place, strict=True))
        return rebuilt(step.value, axes, load, self._decide)

    def _once(self, step: Step, place: Sequence[Any]) -> Any:
        """A variable for what a step computes at a place."""
        key = (step.result, str(place))
        known = self._bound.get(key)
        if known is not None:
            self._count(known.loads)
            return known.variable
        before = self._loads
        expression = self._at(step, place)
        variable = tirx.Var(str(step.result.name), str(step.result.dtype))
        self._bound[key] = _Bound(variable, expression, self._loads - before)
        return variable

    def _count(self, loads: int) -> None:
        self._loads += loads
        if self._loads > _MOST_LOADS:
            raise _TooLargeError

    def _decide(self, condition: Any) -> bool | None:
        condition = self._analyzer.simplify(condition)
        if isinstance(condition, tirx.IntImm):
            return bool(condition.value)
        if self._decides and next(loads(condition), None) is None:
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
