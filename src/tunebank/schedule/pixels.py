"""Means and sums over the pixels of each channel, as pooling over a whole image needs them.

    parallel over parts of the pixels:     part[t, c] combined with x[n, y, x, c], pixel by pixel
    then, of each channel:                 the parts combined, and the kernel's own steps

Memory is read once and in order. Tiled by channels, as MetaSchedule does it, each thread reads
a piece of every pixel: five times slower on an image that does not stay in the near cache. A
schedule of this kind is a trace of one step, `Pixels`.
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
    begin_program,
    rebuilt,
    same,
    steps_after,
    store_steps,
    unravelled,
)
from tunebank.schedule.trace import Trace, one_step

KIND = "Pixels"
_COMBINERS = (tirx.Add, tirx.Max, tirx.Min)
_PARTS_PER_THREAD = 2
_LEAST_VALUES = 4096
"""With fewer it is not worth waking threads."""


@dataclass(frozen=True)
class _Pixels:
    """A kernel of this kind.

    Attributes:
        kernel: the kernel.
        shape: of the results, the channels last.
        pixels: extents of what is reduced.
        axes: of the reduction: those of the results, then those that are reduced.
        value: what is combined.
        combine: the combiner, an expression's type.
        identity: what it begins with.
        result: the buffer of the reduction.
        steps: the blocks after it.
    """

    kernel: Kernel
    shape: tuple[int, ...]
    pixels: tuple[int, ...]
    axes: tuple[Any, ...]
    value: Any
    combine: Any
    identity: Any
    result: Any
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
    first, *others = kernel.sites[1:] or (None,)
    if first is None or not first.reduces or first.extents is None:
        return None
    count = len(first.spatial_loops)
    shape, pixels = first.extents[:count], first.extents[count:]
    axes = tuple(axis.var for axis in first.block.iter_vars)
    store, init = first.block.body, first.block.init
    if not count or first.spatial_loops != tuple(range(count)):
        return None
    if math.prod(shape[1:]) != shape[-1]:
        return None
    if not isinstance(store, tirx.BufferStore) or not isinstance(store.value, _COMBINERS):
        return None
    if not isinstance(init, tirx.BufferStore) or not isinstance(init.value, tirx.FloatImm):
        return None
    if not same(store.indices, axes[:count]) or not _reads_channels_last(store, axes, count):
        return None
    steps = steps_after(others, store.buffer, shape)
    if steps is None:
        return None
    return _Pixels(
        kernel, shape, pixels, axes, store.value.b, type(store.value), init.value, store.buffer,
        steps,
    )  # fmt: skip


def _reads_channels_last(store: Any, axes: tuple[Any, ...], count: int) -> bool:
    """Whether the channel of the result is the last index of all that is read."""
    so_far, value = store.value.a, store.value.b
    if not isinstance(so_far, ir.TensorLoad) or so_far.source != store.buffer:
        return False
    found = list(loads(value))
    return bool(found) and all(
        same([load.indices[-1]], [axes[count - 1]]) and load.source != store.buffer
        for load in found
    )


def _program(found: _Pixels, device: Device) -> ir.IRModule:
    lanes, channels = device.vector_lanes, found.shape[-1]
    pixels, images = math.prod(found.pixels), found.shape[0]
    parts = _PARTS_PER_THREAD * device.threads if pixels * channels > _LEAST_VALUES else 1
    parts = min(parts, pixels)
    each = math.ceil(pixels / parts)
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        buffers = begin_program(found.kernel)

        def load(buffer: Any, place: list[Any]) -> Any:
            return buffers[buffer][tuple(place)]

        sums = T.alloc_buffer((images * parts, channels), "float32")
        with T.parallel(0, images * parts) as part:
            with T.serial(0, channels // lanes) as group, T.vectorized(0, lanes) as lane:
                T.buffer_store(sums, found.identity, [part, group * lanes + lane])
            with T.serial(0, each) as step:
                number = tirx.floormod(part, parts) * each + step
                with T.If(number < pixels), T.Then():
                    where = unravelled(number, found.pixels)
                    with T.serial(0, channels // lanes) as group, T.vectorized(0, lanes) as lane:
                        channel = group * lanes + lane
                        place = [*_result_place(found, tirx.floordiv(part, parts), channel), *where]
                        axes = dict(zip(found.axes, place, strict=True))
                        value = rebuilt(found.value, axes, load)
                        total = found.combine(sums[part, channel], value)
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
        total = found.combine(total, sums[image * parts + part, channel])
    place = _result_place(found, image, channel)
    if found.result in buffers:
        T.buffer_store(buffers[found.result], total, place)
    store_steps(found.steps, place, {found.result: total}, buffers)


def _result_place(found: _Pixels, image: Any, channel: Any) -> list[Any]:
    """Indices of a result: all extents between the image and the channel are 1."""
    if len(found.shape) == 1:
        return [channel]
    return [image, *[0] * (len(found.shape) - 2), channel]
