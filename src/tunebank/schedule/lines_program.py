"""The program of a Lines schedule; see `lines.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tvm import ir, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T  # noqa: N812

from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.schedule.chain import Chain, as_chain
from tunebank.schedule.lines import Parameters, fits
from tunebank.schedule.panels import uneven
from tunebank.schedule.pointwise import begin_program, rebuilt, store_steps, unravelled
from tunebank.schedule.product_program import Panel, ProductProgram

_MOST_ACROSS = 7
_MOST_UNROLLED = 128
"""Places of a window times columns side by side."""


def lines_module(kernel: Kernel, device: Device, parameters: Parameters) -> ir.IRModule:
    """The kernel as a program.

    Raises:
        ValueError: the kernel is not of the kind, or the parameters don't fit it.
    """
    found = as_chain(kernel)
    if found is None:
        raise ValueError("no window over a sum of products")
    if not fits(found, device, parameters):
        raise ValueError(f"{parameters} don't fit the kernel")
    return _Program(found, device.vector_lanes, parameters).module()


class _Program(ProductProgram):
    """Writes the program of one kernel under one set of parameters."""

    def __init__(self, chain: Chain, lanes: int, given: Parameters) -> None:
        super().__init__(chain.product, lanes=lanes, rows=given.rows, vectors=given.vectors)
        self._chain = chain
        self._window = chain.window
        self._bands = given.bands
        self._kept: Any = None
        """The line buffer: (lines, columns with what surrounds them, channels)."""

    def module(self) -> ir.IRModule:
        """The program."""
        batch, height, _, _ = self._window.shape
        with IRBuilder() as builder, T.prim_func(s_tir=True):
            self._buffers = begin_program(self._chain.kernel)
            with self._program():
                self._prepare_x()
                extents = [batch, self._groups, self._bands]
                with T.parallel(0, batch * self._groups * self._bands) as task:
                    image, group, band = unravelled(task, extents)
                    first = self._first_column(group)
                    panel = self._panel({}, group, first)
                    reach, columns = self._window.reach, self._chain.padded[1]
                    self._kept = T.alloc_buffer((reach, columns, self._columns), "float32")
                    self._surround()
                    start = tirx.floordiv(band * height, self._bands)
                    stop = tirx.floordiv((band + 1) * height, self._bands)
                    with T.serial(0, stop - start) as number:
                        self._new_lines(image, start + number, number, first, panel)
                        self._slide(image, start + number, first)
        return ir.IRModule({"main": builder.get()})

    def _surround(self) -> None:
        """Fills the columns to the left and to the right of the image, once and for all."""
        left, width = self._chain.padding.left, self._product.rows
        for begin, end in ((0, left), (left + width, self._chain.padded[1])):
            if end > begin:
                grid = (self._window.reach, end - begin)
                with T.grid(*grid) as (slot, column):
                    self._pad(slot, begin + column)

    def _pad(self, slot: Any, column: Any) -> None:
        value = self._chain.padding.value
        self._each_vector(lambda k: T.buffer_store(self._kept, value, [slot, column, k]))

    def _new_lines(self, image: Any, y: Any, number: Any, first: Any, panel: Panel) -> None:
        """Computes the lines that the window at y reaches over and the one before it did not."""
        reach = self._window.reach
        new = min(reach, self._window.stride[0])
        known = tirx.Select(number == 0, _int(0), _int(reach - new))
        with T.serial(0, reach - known) as step:
            self._line(image, y * self._window.stride[0] + known + step, first, panel)

    def _line(self, image: Any, line: Any, first: Any, panel: Panel) -> None:
        top, height = self._chain.padding.top, self._product.extents[1]
        n, y = self._product.axes[:2]

        def compute() -> None:
            self._rows({n: image, y: line - top}, first, panel)

        if self._chain.padded[0] == height:
            compute()
            return
        with T.If(tirx.all(line >= top, line < top + height)):
            with T.Then():
                compute()
            with T.Else(), T.serial(0, self._product.rows) as x:
                self._pad(self._slot(line), self._chain.padding.left + x)

    def _slot(self, line: Any) -> Any:
        return tirx.floormod(line, self._window.reach)

    def _finish(self, axes: Mapping[Any, Any], column: Any, lane: Any, total: Any) -> None:
        """A vector of what is between the two, into the line buffer."""
        product, padding = self._product, self._chain.padding
        n, y, x, k = product.axes[:4]
        at = {**axes, k: column + lane}
        place = [at[axis] for axis in (n, y, x, k)]
        known = store_steps(product.steps, place, {product.result: total}, self._buffers)
        slot = self._slot(axes[y] + padding.top)
        where = [slot, padding.left + axes[x], lane]
        T.buffer_store(self._kept, known[self._chain.between], where)

    def _slide(self, image: Any, y: Any, first: Any) -> None:
        """A line of results, some columns side by side."""
        most = max(1, min(_MOST_ACROSS, _MOST_UNROLLED // len(self._window.taps)))
        begin = 0
        for count, across in uneven(self._window.shape[2], most):
            if count:
                with T.serial(0, count) as tile:
                    for vector in range(self._vectors):
                        left = begin + tile * across
                        self._columns_at(image, y, left, across, first, vector * self._lanes)
            begin += count * across

    def _columns_at(
        self, image: Any, y: Any, left: Any, across: int, first: Any, offset: int
    ) -> None:
        window, found = self._window, self._window.reduction
        total = T.alloc_buffer((across, self._lanes), "float32", scope="local")

        def each(act: Any) -> None:
            for i in range(across):
                with T.vectorized(0, self._lanes) as lane:
                    act(i, lane)

        each(lambda i, lane: T.buffer_store(total, found.identity, [i, lane]))
        for line, column, place in window.taps:
            slot = self._slot(y * window.stride[0] + line)

            def combine(i: int, lane: Any, slot: Any = slot, column: int = column,
                        place: tuple[int, ...] = place) -> None:  # fmt: skip
                kept = self._kept[slot, (left + i) * window.stride[1] + column, offset + lane]
                at = (image, y, left + i, first + offset + lane)
                axes = dict(zip((*found.axes, *found.reduced), (*at, *place), strict=True))
                value = rebuilt(found.value, axes, lambda b, where: self._value(b, where, kept))
                T.buffer_store(total, found.combine(total[i, lane], value), [i, lane])

            each(combine)

        def finish(i: int, lane: Any) -> None:
            where = [image, y, left + i, first + offset + lane]
            if found.result in self._buffers:
                T.buffer_store(self._buffers[found.result], total[i, lane], where)
            store_steps(window.steps, where, {found.result: total[i, lane]}, self._buffers)

        each(finish)

    def _value(self, buffer: Any, place: list[Any], kept: Any) -> Any:
        """What the window reads: the line buffer, or a parameter."""
        return kept if buffer == self._window.source else self._buffers[buffer][tuple(place)]


def _int(value: int) -> Any:
    return tirx.IntImm("int32", value)
