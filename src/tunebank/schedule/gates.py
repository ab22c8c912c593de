"""Channels of an image weighted by what a small layer says of each, as squeeze and excitation does.

    g[n, k]         = sigmoid(sum over c of s[n, c] * w[c, k] + b[k])      a gate
    out[n, y, x, k] = image[n, y, x, k] * g[n, k]

Both are one kernel, whose anchor is the small layer. Tiled by that, as MetaSchedule does it, the
image is shared out by channels if at all, and the gate is computed anew for each pixel. Here it is
computed once, and the image goes from near cache to near cache:

    parallel bands of lines, or groups of channels where the weights are more than the image:
        g[k] of the channels, in order of the weights
        each pixel of the band, each vector of the channels: the kernel's own steps

A schedule of this kind is a trace of one step, `Gates`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tvm import ir
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T  # noqa: N812

from tunebank.device import Device
from tunebank.kernel import BlockSite, Kernel
from tunebank.kernel.expressions import loads
from tunebank.schedule.pointwise import (
    WORTH_THREADS,
    Step,
    as_step,
    begin_program,
    element,
    mentions,
    rebuilt,
    store_steps,
    unravelled,
    zero,
)
from tunebank.schedule.product import Product, product_at
from tunebank.schedule.trace import Trace, one_step

KIND = "Gates"


@dataclass(frozen=True)
class _Gates:
    """A kernel of this kind.

    Attributes:
        kernel: the kernel.
        product: the small layer; one row for each image.
        gate: the buffer that its steps leave.
        shape: of the image, the channels last.
        steps: what is done to its values, in order.
    """

    kernel: Kernel
    product: Product
    gate: Any
    shape: tuple[int, ...]
    steps: tuple[Step, ...]


def gates_trace(kernel: Kernel, device: Device) -> Trace | None:
    """The schedule, if the kernel is of this kind."""
    found = _as_gates(kernel)
    return one_step(KIND) if found is not None and _is_whole(found, device) else None


def gates_module(kernel: Kernel, device: Device) -> ir.IRModule:
    """The kernel as a program.

    Raises:
        ValueError: the kernel is not of this kind.
    """
    found = _as_gates(kernel)
    if found is None or not _is_whole(found, device):
        raise ValueError("no gate over an image in whole vectors")
    return _program(found, device)


def _is_whole(found: _Gates, device: Device) -> bool:
    return found.shape[-1] % device.vector_lanes == 0


@lru_cache(maxsize=512)
def _as_gates(kernel: Kernel) -> _Gates | None:
    anchor = kernel.anchor
    if anchor is None or sum(site.reduces for site in kernel.sites) != 1:
        return None
    shape = kernel.sites[-1].extents
    own = kernel.sites[anchor].extents
    if shape is None or own is None or math.prod(shape) < 2 * own[0] * shape[-1]:
        return None
    end = next(
        (at for at in range(anchor + 1, len(kernel.sites)) if kernel.sites[at].extents == shape),
        len(kernel.sites),
    )
    product = product_at(kernel, anchor, end=end)
    if product is None or not _is_a_row(product, shape):
        return None
    gate = product.steps[-1].result if product.steps else product.result
    sites = kernel.sites[end:]
    steps = tuple(step for site in sites if (step := _spread(site, gate, shape)) is not None)
    between = {product.result, *(step.result for step in product.steps)}
    if not steps or len(steps) < len(sites) or between & set(kernel.func.params):
        return None
    inner = {step.result for step in steps}
    known = {gate, *inner, *kernel.func.params}
    is_in_place = all(step.reads_in_place(inner) for step in steps)
    reads_known = all(load.source in known for step in steps for load in loads(step.value))
    return _Gates(kernel, product, gate, shape, steps) if is_in_place and reads_known else None


def _is_a_row(product: Product, shape: tuple[int, ...]) -> bool:
    """Whether it gives a value for each channel of each image, and nothing else."""
    spatial = [extent for p, extent in enumerate(product.extents) if p not in product.reduced]
    return (
        not product.is_of_bytes
        and product.together == product.columns == shape[-1]
        and math.prod(spatial) == shape[0] * shape[-1]
        and spatial[0] == shape[0]
    )


def _spread(site: BlockSite, gate: Any, shape: tuple[int, ...]) -> Step | None:
    """A block that takes the gate's value for its own channel; None if it takes another's."""
    step = as_step(site)
    if step is None or site.extents != shape:
        return None
    first, *between, channel = step.axes
    for load in loads(step.value):
        if load.source == gate:
            image, *others, last = load.indices
            is_own = last.same_as(channel) and not mentions(others, channel)
            is_own &= image.same_as(first) or shape[0] == 1
            if not is_own or any(mentions(load.indices, axis) for axis in between):
                return None
    return step


def _is_by_lines(found: _Gates) -> bool:
    """Whether threads share out lines, and each reads all weights."""
    return found.product.w_bytes < 4 * math.prod(found.shape)


def _program(found: _Gates, device: Device) -> ir.IRModule:
    lanes = device.vector_lanes
    batch, *middle, channels = found.shape
    pixels, vectors = math.prod(middle), channels // lanes
    shares = device.threads if math.prod(found.shape) > WORTH_THREADS else 1
    bands, groups = (shares, 1) if _is_by_lines(found) else (1, shares)
    bands, groups = min(bands, pixels), min(groups, vectors)
    extents = [batch, bands, groups]
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        buffers = begin_program(found.kernel)
        with T.parallel(0, math.prod(extents)) as task:
            image, band, group = unravelled(task, extents)
            start, stop = group * vectors // groups, (group + 1) * vectors // groups
            gate = _gate(found, buffers, lanes, image, start, stop)
            top, bottom = band * pixels // bands, (band + 1) * pixels // bands
            with T.serial(0, bottom - top) as pixel:
                at = unravelled(top + pixel, middle)
                with T.serial(0, stop - start) as vector, T.vectorized(0, lanes) as lane:
                    channel = (start + vector) * lanes + lane
                    known = {found.gate: gate[channel]}
                    store_steps(found.steps, [image, *at, channel], known, buffers)
    return ir.IRModule({"main": builder.get()})


def _gate(
    found: _Gates, buffers: Mapping[Any, Any], lanes: int, image: Any, start: Any, stop: Any
) -> Any:
    """The gate of some vectors of channels, in a buffer of all."""
    product = found.product
    axes = product.axes
    spatial = [axes[p] for p in range(len(axes)) if p not in product.reduced]
    row = {axis: (image if number == 0 else 0) for number, axis in enumerate(spatial)}
    gate = T.alloc_buffer((found.shape[-1],), "float32")

    def load(buffer: Any, place: list[Any]) -> Any:
        return element(buffer, place, lambda b, at: buffers[b][tuple(at)], product.producers)

    def each(act: Any) -> None:
        with T.serial(0, stop - start) as vector, T.vectorized(0, lanes) as lane:
            act((start + vector) * lanes + lane)

    each(lambda channel: T.buffer_store(gate, zero(), [channel]))
    with T.grid(*(product.extents[p] for p in product.reduced)) as loops:
        steps = [loops] if len(product.reduced) == 1 else list(loops)
        known = {**row, **{axes[p]: at for p, at in zip(product.reduced, steps, strict=True)}}
        value = rebuilt(product.x, known, load)

        def add(channel: Any) -> None:
            weight = rebuilt(product.w, {**known, axes[product.column]: channel}, load)
            T.buffer_store(gate, gate[channel] + value * weight, [channel])

        each(add)

    def finish(channel: Any) -> None:
        place = [*(row[axis] for axis in spatial[:-1]), channel]
        done = store_steps(product.steps, place, {product.result: gate[channel]}, buffers)
        T.buffer_store(gate, done[found.gate], [channel])

    each(finish)
    return gate
