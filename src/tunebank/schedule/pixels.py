"""Means and sums over the pixels of each channel, as pooling over a whole image needs them.

    parallel over parts of the pixels:     part[t, c] combined with x[n, y, x, c], pixel by pixel
    then, of each channel:                 the parts combined, and the kernel's own steps

Memory is read once and in order. Tiled by channels, as MetaSchedule does it, each thread reads
a piece of every pixel: five times slower on an image that does not stay in the near cache. A
schedule of this kind is a trace of one step, `Pixels`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
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
    WORTH_THREADS,
    Reduction,
    Step,
    as_reduction,
    as_step,
    begin_program,
    element,
    mentions,
    rebuilt,
    same,
    steps_after,
    store_steps,
    unravelled,
)
from tunebank.schedule.trace import Trace, one_step

KIND = "Pixels"
_PARTS_PER_THREAD = 2


@dataclass(frozen=True)
class _Pixels:
    """A kernel of this kind.

    Attributes:
        kernel: the kernel.
        shape: of the results, the channels last.
        reduction: the block that goes over pixels.
        value: what is combined, an expression of that block's axes and of parameters.
        steps: the blocks after it.
    """

    kernel: Kernel
    shape: tuple[int, ...]
    reduction: Reduction
    value: Any
    steps: tuple[Step, ...]


def pixels_trace(kernel: Kernel, device: Device) -> Trace | None:
    """The schedule, if the kernel is of this kind."""
    found = _as_pixels(kernel)
    if found is None or found.shape[-1] % device.vector_lanes:
        return None
    return one_step(KIND)


def pixels_module(kernel: Kernel, device: Device) -> ir.IRModule:
    """The kernel as a program.

    Raises:
        ValueError: the kernel is not of this kind.
    """
    found = _as_pixels(kernel)
    if found is None or found.shape[-1] % device.vector_lanes:
        raise ValueError("no reduction over pixels in whole vectors")
    return _program(found, device)


@lru_cache(maxsize=512)
def _as_pixels(kernel: Kernel) -> _Pixels | None:
    sites = kernel.sites[1:]
    number = next((number for number, site in enumerate(sites) if site.reduces), None)
    if number is None:
        return None
    before = [as_step(site) for site in sites[:number]]
    reduction = as_reduction(sites[number])
    if reduction is None or not reduction.axes or None in before:
        return None
    count = len(reduction.axes)
    shape = (sites[number].extents or ())[:count]
    if sites[number].spatial_loops != tuple(range(count)) or math.prod(shape[1:]) != shape[-1]:
        return None
    producers = {step.result: step for step in before if step is not None}
    if set(producers) & set(kernel.func.params):
        return None
    value = _in_place(reduction, producers)
    if not _reads_channels_last(value, reduction):
        return None
    steps = steps_after(sites[number + 1 :], reduction.result, shape)
    return None if steps is None else _Pixels(kernel, shape, reduction, value, steps)


def _in_place(reduction: Reduction, producers: Mapping[Any, Step]) -> Any:
    """What is combined, with all that blocks before it compute written in."""

    def read(buffer: Any, place: list[Any]) -> Any:
        return buffer[tuple(place)]

    def load(buffer: Any, place: list[Any]) -> Any:
        return element(buffer, place, read, producers)

    axes = (*reduction.axes, *reduction.reduced)
    return rebuilt(reduction.value, dict(zip(axes, axes, strict=True)), load)


def _reads_channels_last(value: Any, reduction: Reduction) -> bool:
    """Whether all that is read of each pixel has the channel as its last index."""
    channel = reduction.axes[-1]
    varying = (channel, *reduction.reduced)
    found = [
        load.indices
        for load in loads(value)
        if any(mentions(load.indices, axis) for axis in varying)
    ]
    return bool(found) and all(
        same([last], [channel]) and not mentions(others, channel) for *others, last in found
    )


def _program(found: _Pixels, device: Device) -> ir.IRModule:
    lanes, channels = device.vector_lanes, found.shape[-1]
    reduction = found.reduction
    pixels, images = math.prod(reduction.extents), found.shape[0]
    parts = _PARTS_PER_THREAD * device.threads if pixels * channels > WORTH_THREADS else 1
    parts = min(parts, pixels)
    each = math.ceil(pixels / parts)
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        buffers = begin_program(found.kernel)

        def load(buffer: Any, place: list[Any]) -> Any:
            return buffers[buffer][tuple(place)]

        sums = T.alloc_buffer((images * parts, channels), "float32")
        with T.parallel(0, images * parts) as part:
            with T.serial(0, channels // lanes) as group, T.vectorized(0, lanes) as lane:
                T.buffer_store(sums, reduction.identity, [part, group * lanes + lane])
            with T.serial(0, each) as step:
                number = tirx.floormod(part, parts) * each + step
                with T.If(number < pixels), T.Then():
                    where = unravelled(number, reduction.extents)
                    with T.serial(0, channels // lanes) as group, T.vectorized(0, lanes) as lane:
                        channel = group * lanes + lane
                        place = [*_result_place(found, tirx.floordiv(part, parts), channel), *where]
                        axes = (*reduction.axes, *reduction.reduced)
                        value = rebuilt(found.value, dict(zip(axes, place, strict=True)), load)
                        total = reduction.combine(sums[part, channel], value)
                        T.buffer_store(sums, total, [part, channel])
        with T.grid(images, channels // lanes) as (image, group), T.vectorized(0, lanes) as lane:
            _finish(found, buffers, sums, parts, image, group * lanes + lane)
    return ir.IRModule({"main": builder.get()})


def _finish(
    found: _Pixels, buffers: dict[Any, Any], sums: Any, parts: int, image: Any, channel: Any
) -> None:
    """Combines the parts of a channel, and applies the kernel's own steps."""
    total = sums[image * parts, channel]
    for part in range(1, parts):
        total = found.reduction.combine(total, sums[image * parts + part, channel])
    place = _result_place(found, image, channel)
    result = found.reduction.result
    if result in buffers:
        T.buffer_store(buffers[result], total, place)
    store_steps(found.steps, place, {result: total}, buffers)


def _result_place(found: _Pixels, image: Any, channel: Any) -> list[Any]:
    """Indices of a result: all extents between the image and the channel are 1."""
    if len(found.shape) == 1:
        return [channel]
    return [image, *[0] * (len(found.shape) - 2), channel]
