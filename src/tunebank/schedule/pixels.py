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
from tunebank.schedule.convolution import rebuilt, same
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
        steps: the blocks after it: buffer, axes, value.
    """

    kernel: Kernel
    shape: tuple[int, ...]
    pixels: tuple[int, ...]
    axes: tuple[Any, ...]
    value: Any
    combine: Any
    identity: Any
    result: Any
    steps: tuple[tuple[Any, tuple[Any, ...], Any], ...]


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
    if first.spatial_loops != tuple(range(count)) or math.prod(shape[1:]) != shape[-1]:
        return None
    if not isinstance(store, tirx.BufferStore) or not isinstance(store.value, _COMBINERS):
        return None
    if not isinstance(init, tirx.BufferStore) or not isinstance(init.value, tirx.FloatImm):
        return None
    if not same(store.indices, axes[:count]) or not _reads_channels_last(store, axes, count):
        return None
    steps: list[tuple[Any, tuple[Any, ...], Any]] = []
    for site in others:
        step = site.block.body
        own = tuple(axis.var for axis in site.block.iter_vars)
        if site.reduces or site.extents != shape or not isinstance(step, tirx.BufferStore):
            return None
        known = {store.buffer, *(buffer for buffer, _, _ in steps)}
        inner = [load for load in loads(step.value) if load.source in known]
        if not all(same(place, own) for place in (step.indices, *(one.indices for one in inner))):
            return None
        steps.append((step.buffer, own, step.value))
    return _Pixels(
        kernel, shape, pixels, axes, store.value.b, type(store.value), init.value, store.buffer,
        tuple(steps),
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
    buffers: dict[Any, Any] = {}

    def load(buffer: Any, place: list[Any]) -> Any:
        return buffers[buffer][tuple(place)]

    with IRBuilder() as builder, T.prim_func():
        T.func_name("main")
        T.func_attr({"global_symbol": "main", "tirx.noalias": True})
        for position, param in enumerate(found.kernel.func.params):
            shape = [int(extent) for extent in param.shape]
            buffers[param] = T.arg(f"p{position}", T.buffer(shape, str(param.dtype)))
        sums = T.alloc_buffer((images * parts, channels), "float32")
        with T.parallel(0, images * parts) as part:
            with T.serial(0, channels // lanes) as group, T.vectorized(0, lanes) as lane:
                T.buffer_store(sums, found.identity, [part, group * lanes + lane])
            with T.serial(0, each) as step:
                number = tirx.floormod(part, parts) * each + step
                with T.If(number < pixels), T.Then():
                    where = _unravelled(number, found.pixels)
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
    values = {found.result: total}

    def load(buffer: Any, at: list[Any]) -> Any:
        return values[buffer] if buffer in values else buffers[buffer][tuple(at)]

    if found.result in buffers:
        T.buffer_store(buffers[found.result], total, place)
    for buffer, axes, value in found.steps:
        values[buffer] = rebuilt(value, dict(zip(axes, place, strict=True)), load)
        if buffer in buffers:
            T.buffer_store(buffers[buffer], values[buffer], place)


def _result_place(found: _Pixels, image: Any, channel: Any) -> list[Any]:
    """Indices of a result: all extents between the image and the channel are 1."""
    if len(found.shape) == 1:
        return [channel]
    return [image, *[0] * (len(found.shape) - 2), channel]


def _unravelled(number: Any, extents: tuple[int, ...]) -> list[Any]:
    place, rest = [], number
    for extent in reversed(extents):
        place.append(tirx.floormod(rest, extent))
        rest = tirx.floordiv(rest, extent)
    return place[::-1]
