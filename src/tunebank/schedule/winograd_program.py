"""The program of a Winograd schedule; see `winograd.py`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tvm import ir, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T  # noqa: N812

from tunebank import _tvm
from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.schedule.convolution import Convolution
from tunebank.schedule.pointwise import begin_program, rebuilt, unravelled, zero
from tunebank.schedule.product_program import STEPS_AHEAD
from tunebank.schedule.trace import Trace
from tunebank.schedule.winograd import (
    ATTRIBUTE,
    Parameters,
    fits,
    shares_of_a_block,
    suitable,
)

_INPUT = {
    4: ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
    6: (
        (4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0),
        (0, -2, -1, 2, 1, 0), (0, 2, -1, -2, 1, 0), (0, 4, 0, -5, 0, 1),
    ),
}  # fmt: skip
"""B', by a."""
_OUTPUT = {
    (2, 3): ((1, 1, 1, 0), (0, 1, -1, -1)),
    (2, 5): ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 1)),
    (4, 3): ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
}
"""A', by m and r."""


def winograd_module(kernel: Kernel, device: Device, trace: Trace) -> ir.IRModule:
    """The kernel as a program.

    Its weight has another shape than the kernel's: (a², K / (columns · lanes), C, columns ·
    lanes); the attribute `ATTRIBUTE` says how it is made.

    Raises:
        ValueError: the kernel is not of the kind, or the parameters don't fit it.
    """
    parameters = Parameters.of(trace)
    found = suitable(kernel, device)
    if found is None:
        raise ValueError("no convolution of stride 1 in whole vectors")
    if not fits(kernel, device, parameters):
        raise ValueError(f"{parameters} don't fit the kernel")
    return _Program(found, device, parameters).module()


class _Program:
    """Writes the program of one kernel under one set of parameters."""

    def __init__(self, convolution: Convolution, device: Device, parameters: Parameters) -> None:
        self._conv = convolution
        self._lanes = device.vector_lanes
        self._given = parameters
        self._m = parameters.outputs
        self._window = convolution.window[0]
        self._a = self._m + self._window - 1
        self._batch, self._height, self._width, self._results = convolution.shape
        self._down = math.ceil(self._height / self._m)
        self._across = math.ceil(self._width / self._m)
        self._count = self._batch * self._down * self._across
        self._columns = self._lanes * parameters.columns
        self._blocks = math.ceil(self._count / parameters.tiles)
        groups = self._results // self._columns
        self._shares = shares_of_a_block(self._blocks, groups, device.threads)
        self._own = groups // self._shares
        """Groups of columns that a task multiplies."""
        self._buffers: dict[Any, Any] = {}

    def module(self) -> ir.IRModule:
        """The program."""
        with IRBuilder() as builder, T.prim_func(s_tir=True):
            self._begin()
            with T.parallel(0, self._blocks * self._shares) as task:
                block, share = unravelled(task, [self._blocks, self._shares])
                shape = (self._a * self._a, self._given.tiles)
                values = T.alloc_buffer((*shape, self._conv.channels), "float32")
                products = T.alloc_buffer((*shape, self._own * self._columns), "float32")
                self._transform_inputs(block, values)
                self._multiply(values, products, share)
                self._transform_outputs(block, products, share)
        return ir.IRModule({"main": builder.get()})

    def _begin(self) -> None:
        groups = self._results // self._columns
        shape = [self._a * self._a, groups, self._conv.channels, self._columns]
        about = {ATTRIBUTE: [self._conv.weight, self._m, self._window, self._columns]}
        self._buffers = begin_program(self._conv.kernel, {self._conv.weight: shape}, about)
        self._weight = self._buffers[self._conv.kernel.func.params[self._conv.weight]]

    def _transform_inputs(self, block: Any, values: Any) -> None:
        a, lanes = self._a, self._lanes
        grid = (self._given.tiles, self._conv.channels // lanes)
        with T.grid(*grid) as (tile, group):  # noqa: SIM117  the second needs the first
            with T.If(self._number(block, tile) < self._count), T.Then():
                given = T.alloc_buffer((a, a, lanes), "float32", scope="local")
                half = T.alloc_buffer((a, a, lanes), "float32", scope="local")
                n, top, left = self._place(block, tile)
                with T.unroll(0, a) as r, T.unroll(0, a) as s:
                    self._gather(given, (r, s), (n, top + r, left + s), group)
                rows = _INPUT[a]
                for i in range(a):
                    with T.unroll(0, a) as s:
                        self._combine(half, (i, s), rows[i], [(given, (r, s)) for r in range(a)])
                for i in range(a):
                    for j in range(a):
                        parts = [(half, (i, s)) for s in range(a)]
                        place = (i * a + j, tile)
                        self._combine(values, place, rows[j], parts, offset=group * lanes)

    def _gather(self, given: Any, at: tuple[Any, Any], place: tuple[Any, ...], group: Any) -> None:
        """A vector of inputs; those that only tiles over the edge need are 0."""
        n, y, x = place
        reach = self._window - 1
        inside = tirx.all(y < self._height + reach, x < self._width + reach)
        with T.vectorized(0, self._lanes) as lane:
            element = self._conv.source(self._load, (n, y, x, group * self._lanes + lane))
            if self._height % self._m or self._width % self._m:
                element = tirx.if_then_else(inside, element, tirx.const(0.0, "float32"))
            T.buffer_store(given, element, [*at, lane])

    def _multiply(self, values: Any, products: Any, share: Any) -> None:
        rows, columns = self._given.rows, self._columns
        grid = (self._a * self._a, self._own, self._given.tiles // rows)
        with T.grid(*grid) as (e, own, part):
            group = share * self._own + own
            sums = T.alloc_buffer((rows, columns), "float32", scope="local")
            self._each(rows, lambda i, k: T.buffer_store(sums, zero(), [i, k]))
            with T.serial(0, self._conv.channels) as c:
                for column in range(0, columns, self._lanes):
                    _tvm.prefetch(self._weight[e, group, c + STEPS_AHEAD, column])

                def add(i: Any, k: Any) -> None:
                    value = values[e, part * rows + i, c] * self._weight[e, group, c, k]
                    T.buffer_store(sums, sums[i, k] + value, [i, k])

                self._each(rows, add)

            def keep(i: Any, k: Any) -> None:
                T.buffer_store(products, sums[i, k], [e, part * rows + i, own * columns + k])

            self._each(rows, keep)

    def _each(self, rows: int, act: Callable[[Any, Any], None]) -> None:
        """Acts on each vector of a register tile."""
        with T.unroll(0, rows) as i:
            for column in range(self._given.columns):
                with T.vectorized(0, self._lanes) as lane:
                    act(i, column * self._lanes + lane)

    def _transform_outputs(self, block: Any, products: Any, share: Any) -> None:
        m, a, lanes = self._m, self._a, self._lanes
        vectors = self._own * self._given.columns
        grid = (self._given.tiles, vectors)
        with T.grid(*grid) as (tile, own):  # noqa: SIM117  the second needs the first
            with T.If(self._number(block, tile) < self._count), T.Then():
                half = T.alloc_buffer((m, a, lanes), "float32", scope="local")
                done = T.alloc_buffer((m, m, lanes), "float32", scope="local")
                rows = _OUTPUT[m, self._window]
                for i in range(m):
                    with T.unroll(0, a) as s:
                        parts = [(products, (r * a + s, tile)) for r in range(a)]
                        self._combine(half, (i, s), rows[i], parts, read_at=own * lanes)
                n, top, left = self._place(block, tile)
                group = share * vectors + own
                for i in range(m):
                    for j in range(m):
                        parts = [(half, (i, s)) for s in range(a)]
                        self._combine(done, (i, j), rows[j], parts)
                        self._finish(done, (i, j), (n, top + i, left + j), group)

    def _finish(self, done: Any, at: tuple[int, int], place: tuple[Any, ...], group: Any) -> None:
        """The kernel's own steps on a vector of results, unless it lies over the edge."""
        _, y, x = place
        if self._height % self._m == 0 and self._width % self._m == 0:
            self._store(done, at, place, group)
            return
        with T.If(tirx.all(y < self._height, x < self._width)), T.Then():
            self._store(done, at, place, group)

    def _store(self, done: Any, at: tuple[int, int], place: tuple[Any, ...], group: Any) -> None:
        results = {self._conv.result: (done, at)}
        for step in self._conv.steps:
            if step.result not in self._buffers:
                held = T.alloc_buffer((1, 1, self._lanes), str(step.result.dtype), scope="local")
                results[step.result] = (held, (0, 0))
        with T.vectorized(0, self._lanes) as lane:
            indices = [*place, group * self._lanes + lane]

            def load(buffer: Any, where: list[Any]) -> Any:
                if buffer in results:
                    kept, position = results[buffer]
                    return kept[(*position, lane)]
                return self._load(buffer, where)

            if not self._conv.steps:
                T.buffer_store(self._buffers[self._conv.result], done[(*at, lane)], indices)
            for step in self._conv.steps:
                value = rebuilt(step.value, dict(zip(step.axes, indices, strict=True)), load)
                if step.result in self._buffers:
                    T.buffer_store(self._buffers[step.result], value, indices)
                else:
                    kept, position = results[step.result]
                    T.buffer_store(kept, value, [*position, lane])

    def _combine(
        self,
        into: Any,
        place: tuple[Any, ...],
        factors: Sequence[float],
        parts: Sequence[tuple[Any, tuple[Any, ...]]],
        *,
        offset: Any = 0,
        read_at: Any = 0,
    ) -> None:
        """A vector that is a sum of others, each times a factor."""
        with T.vectorized(0, self._lanes) as lane:
            total = None
            for factor, (buffer, at) in zip(factors, parts, strict=True):
                if factor:
                    total = _plus(total, factor, buffer[(*at, read_at + lane)])
            T.buffer_store(into, total, [*place, offset + lane])

    def _load(self, buffer: Any, place: list[Any]) -> Any:
        if buffer not in self._buffers:
            raise ValueError("an intermediate result is used elsewhere")
        return self._buffers[buffer][tuple(place)]

    def _number(self, block: Any, tile: Any) -> Any:
        return block * self._given.tiles + tile

    def _place(self, block: Any, tile: Any) -> tuple[Any, Any, Any]:
        """Which image a tile is of, and where its first result is."""
        number = self._number(block, tile)
        in_image = self._down * self._across
        inside = tirx.floormod(number, in_image)
        row, column = tirx.floordiv(inside, self._across), tirx.floormod(inside, self._across)
        return tirx.floordiv(number, in_image), row * self._m, column * self._m


def _plus(total: Any, factor: float, term: Any) -> Any:
    """Total + factor · term, without multiplications by 1."""
    size = abs(factor)
    term = term if size == 1 else tirx.const(size, "float32") * term
    if total is None:
        return term if factor > 0 else -term
    return total + term if factor > 0 else total - term
