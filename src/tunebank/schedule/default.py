"""The default schedule: what a kernel gets when no donor is known.

It is found without measuring. Of the kernel's own sketches the one that fuses the epilogue
into the outer tiles is taken, and its factors follow from the register file and the caches:

    spatial loops      innermost factors: the best register tile; the rest outside, where the
                       threads share it
    last reduction     innermost factor: so long that a tile of the weights stays in L1
    other reductions   outside
"""

from __future__ import annotations

from typing import Any

from tunebank.kernel import Kernel
from tunebank.schedule.registers import register_tiles
from tunebank.schedule.roles import TileRole, tile_roles
from tunebank.schedule.space import Space
from tunebank.schedule.tiles import nearest_divisor
from tunebank.schedule.trace import Trace

_REDUCTION_TILE = 64
_UNROLL_CATEGORY = 1


def default_traces(space: Space) -> list[Trace]:
    """Default schedules of a kernel, the preferred one first; any of them may be illegal."""
    sketches = list(space.sketches)
    # Sketches come from least to most fused; the middle one suits most kernels.
    order = sorted(range(len(sketches)), key=lambda index: abs(index - 1))
    return [_decided(sketches[index], space) for index in order]


def _decided(sketch: Trace, space: Space) -> Trace:
    kernel = space.kernel
    tiles = _inner_tile(space)
    changed: dict[int, Any] = {
        index: list(_factors(role, kernel, tiles))
        for index, role in tile_roles(sketch, kernel.loop_extents).items()
    }
    for index, step in enumerate(sketch.instructions):
        if step.kind == "SampleCategorical":
            changed[index] = min(_UNROLL_CATEGORY, len(step.attributes[0]) - 1)
        elif step.kind == "SampleComputeLocation":
            changed[index] = -1  # at the root: by itself
    return sketch.with_decisions(changed)


def _inner_tile(space: Space) -> dict[int, int]:
    """Innermost factor by spatial loop of the anchor."""
    kernel = space.kernel
    if kernel.anchor is None:
        return {}
    spatial = kernel.spatial_loops(kernel.anchor)
    extents = [kernel.loop_extents[kernel.anchor][loop] for loop in spatial]
    return dict(zip(spatial, register_tiles(extents, space.device)[0], strict=True))


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
