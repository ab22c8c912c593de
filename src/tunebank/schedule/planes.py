"""Images turned from planes to pixels of a few channels, or back, as at the borders of a network.

    y[n, h, w, c] = x[n, c, h, w], c < 4        parallel over rows of pixels:
                                                  pixel by pixel:
                                                    the channels, unrolled

Nothing is a vector here as it is written: of this loop LLVM makes whole-vector loads, shuffles and
stores. A vector of TVM's would be as short as the channels, or be gathered element by element. A
schedule of this kind is a trace of one step, `Planes`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tvm import ir, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T  # noqa: N812

from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.kernel.expressions import loads
from tunebank.schedule.pointwise import (
    Step,
    as_step,
    begin_program,
    steps_after,
    store_steps,
    unravelled,
)
from tunebank.schedule.trace import Trace, one_step

KIND = "Planes"
_FEW = 4
_LEAST_ROWS = 8
"""With fewer there is not enough to share out between threads."""


@dataclass(frozen=True)
class _Planes:
    """A kernel of this kind.

    Attributes:
        kernel: the kernel.
        shape: of the results.
        steps: its blocks, the transpose first.
        channel: the axis of the channels.
        column: the axis along a row of pixels.
    """

    kernel: Kernel
    shape: tuple[int, ...]
    steps: tuple[Step, ...]
    channel: int
    column: int

    @property
    def others(self) -> list[int]:
        """The other axes: those that tell a row."""
        return [axis for axis in range(len(self.shape)) if axis not in (self.channel, self.column)]


def planes_trace(kernel: Kernel) -> Trace | None:
    """The schedule, if the kernel is of this kind."""
    return one_step(KIND) if _as_planes(kernel) is not None else None


def planes_module(kernel: Kernel, device: Device) -> ir.IRModule:
    """The kernel as a program.

    Raises:
        ValueError: the kernel is not of this kind.
    """
    found = _as_planes(kernel)
    if found is None:
        raise ValueError("no transpose of planes and pixels")
    extents = [found.shape[axis] for axis in found.others]
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        parameters = begin_program(found.kernel)
        with T.parallel(0, math.prod(extents)) as row:
            place: list[Any] = [None] * len(found.shape)
            for axis, index in zip(found.others, unravelled(row, extents), strict=True):
                place[axis] = index
            columns, channels = found.shape[found.column], found.shape[found.channel]
            with T.serial(0, columns) as column, T.unroll(0, channels) as channel:
                place[found.column], place[found.channel] = column, channel
                store_steps(found.steps, place, {}, parameters)
    return ir.IRModule({"main": builder.get()})


@lru_cache(maxsize=512)
def _as_planes(kernel: Kernel) -> _Planes | None:
    first, *others = kernel.sites[1:] or (None,)
    step = as_step(first) if first is not None else None
    if first is None or step is None or first.extents is None:
        return None
    shape = first.extents
    after = steps_after(others, step.result, shape)
    column_and_channel = _axes(step, shape)
    if after is None or column_and_channel is None:
        return None
    found = _Planes(kernel, shape, (step, *after), *column_and_channel)
    rows = math.prod(shape[axis] for axis in found.others)
    return found if rows >= _LEAST_ROWS else None


def _axes(step: Step, shape: tuple[int, ...]) -> tuple[int, int] | None:
    """The axes of channels and of columns; None if it is no transpose of few channels."""
    found = list(loads(step.value))
    if len(found) != 1 or len(shape) < 3:
        return None
    order = [_position(index, step) for index in found[0].indices]
    if sorted(place for place in order if place >= 0) != list(range(len(shape))):
        return None
    ends = {order[-1], len(shape) - 1}
    if len(ends) < 2 or -1 in ends:
        return None
    channel, column = sorted(ends, key=lambda axis: shape[axis])
    return (channel, column) if shape[channel] <= _FEW else None


def _position(index: Any, step: Step) -> int:
    """Which axis of the step an index is; -1 for a constant, -2 for anything else."""
    if isinstance(index, tirx.IntImm):
        return -1
    return next((i for i, axis in enumerate(step.axes) if axis.same_as(index)), -2)
