"""What a schedule's innermost tile promises, before anything is measured."""

from __future__ import annotations

import math

from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.schedule.registers import column_period, tile_efficiency
from tunebank.schedule.roles import tile_roles
from tunebank.schedule.trace import Instruction, Trace
from tunebank.schedule.winograd import expected_octaves_of, parameters_of

_LONG_BODY = 64  # vector instructions
_LONG_BODY_WEIGHT = 0.25
_ROLLED_COST = 0.3
_GATHER_COST = 3.0


def register_tile(trace: Trace, kernel: Kernel) -> tuple[int, int] | None:
    """Rows and columns of the register tile that a trace gives the kernel's anchor.

    None if the trace does not tile every spatial loop of the anchor by itself.
    """
    factors = anchor_factors(trace, kernel)
    if not factors or kernel.anchor is None:
        return None
    spatial = kernel.spatial_loops(kernel.anchor)
    if not spatial or any(loop not in factors for loop in spatial):
        return None
    inner = [factors[loop][-1] for loop in spatial]
    return math.prod(inner[:-1]), inner[-1]


def anchor_factors(trace: Trace, kernel: Kernel) -> dict[int, tuple[int, ...]]:
    """Tile factors of the anchor's loops, those that are tiled one by one, outermost first.

    A decision that is no tiling, as a stranger's bank may have it, counts as none.
    """
    found = {}
    for index, role in tile_roles(trace, kernel.loop_extents).items():
        factors = trace.decisions.get(index)
        is_own = role.block == kernel.anchor and len(role.loops) == 1
        if is_own and isinstance(factors, list) and len(factors) == role.levels:
            found[role.loops[0]] = tuple(max(1, int(factor)) for factor in factors)
    return found


def unrolled_vectors(trace: Trace, kernel: Kernel, device: Device) -> int | None:
    """Vector instructions in the innermost loop body once it is unrolled; None if unknown.

    Loops are unrolled from the innermost outwards as long as their steps stay within the trace's
    last categorical decision: the register tile's rows, the inner reduction, the tile around
    them. The innermost loop of all is a vector.
    """
    tile = register_tile(trace, kernel)
    limit = unroll_limit(trace)
    if tile is None or limit is None or kernel.anchor is None:
        return None
    factors = anchor_factors(trace, kernel)
    spatial = kernel.spatial_loops(kernel.anchor)
    rows = [factors[loop][-1] for loop in reversed(spatial[:-1])]
    reduction = [f[-1] for loop, f in sorted(factors.items(), reverse=True) if loop not in spatial]
    around = [factors[loop][-2] for loop in reversed(spatial) if len(factors[loop]) > 1]
    steps = 1
    for factor in (*rows, *reduction, *around):
        if steps * factor > limit:
            break
        steps *= factor
    return steps * math.ceil(tile[1] / device.vector_lanes)


def unroll_limit(trace: Trace) -> int | None:
    """Steps that the whole kernel's innermost loops may be unrolled to; None if undecided."""
    decided = [
        step.attributes[0][trace.decisions[index]]
        for index, step in enumerate(trace.instructions)
        if step.kind == "SampleCategorical" and index in trace.decisions
    ]
    return int(decided[-1]) if decided else None


def unroll_choice(step: Instruction, at_least: int) -> int:
    """Of a categorical step the place of the smallest choice that is not below; else the last."""
    choices = step.attributes[0]
    enough = (place for place, choice in enumerate(choices) if choice >= at_least)
    return next(enough, len(choices) - 1)


def expected_octaves(trace: Trace, kernel: Kernel, device: Device) -> float:
    """How much slower than the best a schedule should be, in octaves, by its innermost tile.

    Unrolling should cover the register tile, whose accumulators else pass through memory, and
    little more: long bodies leave the registers' live ranges, and later the instruction cache,
    to chance, and take long to compile.
    """
    if (winograd := parameters_of(trace)) is not None:
        return expected_octaves_of(kernel, device, winograd)
    tile = register_tile(trace, kernel)
    if tile is None:
        return 0.0
    octaves = -math.log2(tile_efficiency(*tile, device))
    period = column_period(kernel)
    if period is not None and period % tile[1]:
        octaves += _GATHER_COST
    body = unrolled_vectors(trace, kernel, device)
    if body is not None:
        octaves += _LONG_BODY_WEIGHT * max(0.0, math.log2(body / _LONG_BODY))
        accumulators = tile[0] * math.ceil(tile[1] / device.vector_lanes)
        octaves += _ROLLED_COST if body < accumulators else 0.0
    return octaves
