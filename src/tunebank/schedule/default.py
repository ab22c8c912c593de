"""Default schedules: what a kernel gets when no donor is known.

They are found without measuring. Of the kernel's own sketches the one that fuses the epilogue
into the outer tiles comes first, and its decisions follow from the register file and the caches:

    spatial loops      innermost factors: one of the best register tiles; the rest outside, where
                       the threads share it
    last reduction     innermost factor: so long that a tile of the weights stays in L1
    other reductions   outside
    unrolling          the register tile
    padding            a pass of its own where each padded value is used often, as in a
                       convolution of all channels; inlined where it is not, as in a depthwise one
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from tunebank.kernel import Kernel
from tunebank.schedule.attention import attention_traces
from tunebank.schedule.estimate import unroll_choice
from tunebank.schedule.gates import gates_trace
from tunebank.schedule.lines import lines_traces
from tunebank.schedule.panels import panels_traces
from tunebank.schedule.pieces import pieces_trace
from tunebank.schedule.pixels import pixels_trace
from tunebank.schedule.planes import planes_trace
from tunebank.schedule.registers import anchor_tiles
from tunebank.schedule.roles import TileRole, tile_roles
from tunebank.schedule.rows import rows_trace
from tunebank.schedule.space import IllegalScheduleError, Scheduled, Space
from tunebank.schedule.tiles import nearest_divisor
from tunebank.schedule.trace import Trace
from tunebank.schedule.windows import windows_trace

_REDUCTION_TILE = 64
_TILES = 3
_OFTEN = 32
_AT_ROOT, _INLINED = -1, -2  # decisions of `SampleComputeLocation`


def default_traces(space: Space) -> list[Trace]:
    """Default schedules of a kernel, the preferred one first; any of them may be illegal."""
    for joint in (lines_traces, attention_traces):
        if traces := joint(space.kernel, space.device):
            return traces  # sketches tile one of the kernel's reductions, not all together
    first = _own_programs(space, clearly=True)
    # Sketches come from least to most fused; the middle one suits most kernels.
    order = sorted(range(len(space.sketches)), key=lambda index: abs(index - 1))
    traces = [
        _decided(space.sketches[index], space, tile)
        for tile in anchor_tiles(space.kernel, space.device, count=_TILES) or [{}]
        for index in order
    ]
    last = _own_programs(space, clearly=False)
    return list({trace.identity: trace for trace in [*first, *traces, *last]}.values())


def _own_programs(space: Space, *, clearly: bool) -> list[Trace]:
    """Programs of our own: those that are sure to pay, or also those that are worth a try."""
    kernel, device = space.kernel, space.device
    found = [
        pixels_trace(kernel, device),
        gates_trace(kernel, device),
        rows_trace(kernel),
        planes_trace(kernel),
        windows_trace(kernel, device, clearly=clearly),
        pieces_trace(kernel, clearly=clearly),
        *panels_traces(kernel, device, clearly=clearly),
    ]
    return [trace for trace in found if trace is not None]


def legal_defaults(space: Space) -> Iterator[Scheduled]:
    """The default schedules that are legal, the preferred one first; each made when asked for."""
    for trace in default_traces(space):
        with suppress(IllegalScheduleError):
            yield space.apply(trace)


def default_schedule(space: Space) -> Scheduled | None:
    """The first default schedule that is legal; None if none is."""
    return next(legal_defaults(space), None)


def _decided(sketch: Trace, space: Space, tile: dict[int, int]) -> Trace:
    kernel = space.kernel
    changed: dict[int, Any] = {
        index: list(_factors(role, kernel, tile))
        for index, role in tile_roles(sketch, kernel.loop_extents).items()
    }
    rows = math.prod(list(tile.values())[:-1])
    for index, step in enumerate(sketch.instructions):
        if step.kind == "SampleCategorical":
            changed[index] = unroll_choice(step, max(rows, 1))  # some unrolling, always
        elif step.kind == "SampleComputeLocation":
            changed[index] = _AT_ROOT if _uses_per_value(kernel) >= _OFTEN else _INLINED
    return sketch.with_decisions(changed)


def _factors(role: TileRole, kernel: Kernel, tile: dict[int, int]) -> tuple[int, ...]:
    """Factors of one tiling, outermost first."""
    inner = 1
    if role.block == kernel.anchor and len(role.loops) == 1:
        (loop,) = role.loops
        last = len(kernel.loop_extents[role.block]) - 1
        if loop in tile:
            inner = tile[loop]
        elif loop == last:
            inner = nearest_divisor(role.extent, _REDUCTION_TILE, limit=role.innermost_limit)
    inner = nearest_divisor(role.extent, inner, limit=max(role.innermost_limit, 1))
    return (role.extent // inner, *[1] * (role.levels - 2), inner)


def _uses_per_value(kernel: Kernel) -> float:
    """How often the anchor uses each value of what is computed before it."""
    if kernel.anchor is None:
        return math.inf
    extents = kernel.loop_extents
    before = [math.prod(extents[i]) for i in extents if 0 < i < kernel.anchor]
    if not before:
        return math.inf
    return math.prod(kernel.loop_extents[kernel.anchor]) / max(before)
