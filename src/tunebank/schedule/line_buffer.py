"""The lines of an image that a window reaches over, kept while it slides down.

    line l of the padded image lies in slot l mod R, R lines being what the window reaches over

Some vectors of channels are kept, those that a thread takes at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tvm import tirx
from tvm.tirx.script.builder import ir as T  # noqa: N812

from tunebank.schedule.chain import Padding, Window
from tunebank.schedule.pointwise import rebuilt, store_steps
from tunebank.schedule.tiles import uneven

_MOST_TAPS = 25
"""Places of a window whose code is written out; of one with more, that of a row of them is."""
_MOST_ACROSS, _MOST_ACROSS_IN_ROWS = 7, 8
"""Columns side by side, written out and row by row."""
_MOST_UNROLLED = 128
"""Places that are written out times columns side by side."""


class LineBuffer:
    """Writes the part of a program that slides a window down an image.

    Args:
        window: the window.
        padding: what surrounds the image.
        buffers: the program's parameters, by buffer of the kernel.
        lanes: elements of a vector.
        vectors: of channels.
    """

    def __init__(
        self,
        window: Window,
        padding: Padding,
        buffers: Mapping[Any, Any],
        *,
        lanes: int,
        vectors: int,
    ) -> None:
        self._window = window
        self._padding = padding
        self._buffers = buffers
        self._lanes = lanes
        self._vectors = vectors
        is_large = len(window.taps) > _MOST_TAPS
        self._rows = window.rows if is_large else (1, 0, window.taps)
        _, self._lines, self._columns, _ = (int(n) for n in window.source.shape)
        shape = (window.reach, self._columns, lanes * vectors)
        self._kept = T.alloc_buffer(shape, "float32")

    def pass_over(
        self, image: Any, first: Any, start: Any, stop: Any, *, fill: Callable[[Any], None]
    ) -> None:
        """Slides over the lines of results from `start` to `stop`.

        Args:
            image: which image.
            first: the first channel.
            start: the first line.
            stop: the line after the last.
            fill: writes the code that keeps (`keep`) all columns of a line of the image.
        """
        self._surround()
        with T.serial(0, stop - start) as number:
            self._new_lines(start + number, number, fill)
            self._slide(image, start + number, first)

    def keep(self, value: Any, line: Any, column: Any, channel: Any) -> None:
        """Keeps a vector of an image: at a line and column, from a channel of those kept."""
        place = [self._slot(line + self._padding.top), self._padding.left + column, channel]
        T.buffer_store(self._kept, value, place)

    def _surround(self) -> None:
        """Fills the columns to the left and to the right of the image, once and for all."""
        left, right = self._padding.left, self._padding.left + self._padding.width
        for begin, end in ((0, left), (right, self._columns)):
            if end > begin:
                with T.grid(self._window.reach, end - begin) as (slot, column):
                    self._pad(slot, begin + column)

    def _pad(self, slot: Any, column: Any) -> None:
        for vector in range(self._vectors):
            with T.vectorized(0, self._lanes) as lane:
                place = [slot, column, vector * self._lanes + lane]
                T.buffer_store(self._kept, self._padding.value, place)

    def _new_lines(self, y: Any, number: Any, fill: Callable[[Any], None]) -> None:
        """Fills the lines that the window at y reaches over and the one before it did not."""
        reach = self._window.reach
        new = min(reach, self._window.stride[0])
        known = tirx.Select(number == 0, _int(0), _int(reach - new))
        with T.serial(0, reach - known) as step:
            self._line(y * self._window.stride[0] + known + step, fill)

    def _line(self, line: Any, fill: Callable[[Any], None]) -> None:
        """Fills a line of the padded image."""
        top, height = self._padding.top, self._padding.height
        if self._lines == height:
            fill(line)
            return
        with T.If(tirx.all(line >= top, line < top + height)):
            with T.Then():
                fill(line - top)
            with T.Else(), T.serial(0, self._padding.width) as column:
                self._pad(self._slot(line), self._padding.left + column)

    def _slot(self, line: Any) -> Any:
        return tirx.floormod(line, self._window.reach)

    def _slide(self, image: Any, y: Any, first: Any) -> None:
        """A line of results, some columns side by side."""
        rows, _, taps = self._rows
        limit = _MOST_ACROSS if rows == 1 else _MOST_ACROSS_IN_ROWS
        most = max(1, min(limit, _MOST_UNROLLED // len(taps)))
        begin = 0
        for count, across in uneven(self._window.shape[2], most):
            if count:
                with T.serial(0, count) as tile:
                    for vector in range(self._vectors):
                        at = (image, y, begin + tile * across, first)
                        self._tile(at, across, vector * self._lanes)
            begin += count * across

    def _tile(self, at: tuple[Any, ...], across: int, offset: int) -> None:
        """A vector of results for each of some columns."""
        window, found = self._window, self._window.reduction
        image, y, left, first = at
        total = T.alloc_buffer((across, self._lanes), "float32", scope="local")

        def each(act: Callable[[Any, Any], None]) -> None:
            with T.unroll(0, across) as i, T.vectorized(0, self._lanes) as lane:
                act(i, lane)

        def place(i: Any, lane: Any) -> list[Any]:
            return [image, y, left + i, first + offset + lane]

        def combine(i: Any, lane: Any) -> None:
            slot = self._slot(top + line)
            kept = self._kept[slot, (left + i) * window.stride[1] + column, offset + lane]
            known = dict(zip((*found.axes, *found.reduced), (*place(i, lane), *tap), strict=True))
            value = rebuilt(found.value, known, lambda b, where: self._load(b, where, kept))
            T.buffer_store(total, found.combine(total[i, lane], value), [i, lane])

        def finish(i: Any, lane: Any) -> None:
            if found.result in self._buffers:
                T.buffer_store(self._buffers[found.result], total[i, lane], place(i, lane))
            known = {found.result: total[i, lane]}
            store_steps(window.steps, place(i, lane), known, self._buffers)

        each(lambda i, lane: T.buffer_store(total, found.identity, [i, lane]))
        rows, step, taps = self._rows
        with T.serial(0, rows) as row:
            top = y * window.stride[0] + row * step
            for line, column, of_first in taps:  # noqa: B007  `combine` reads them
                tap = (row, *of_first[1:]) if rows > 1 else of_first
                each(combine)
        each(finish)

    def _load(self, buffer: Any, place: list[Any], kept: Any) -> Any:
        """What the window reads: a line that is kept, or a parameter."""
        return kept if buffer == self._window.source else self._buffers[buffer][tuple(place)]


def _int(value: int) -> Any:
    return tirx.IntImm("int32", value)
