"""How well an innermost tile fits the vector registers.

The innermost spatial factors of a tiling are the *register tile*: R rows, each of V vectors,
accumulated over the reduction. For each step of the reduction it takes R broadcasts and V loads,
and R*V multiply-adds; R*V accumulators, V loaded vectors and one broadcast must stay in
registers, or every accumulator goes through memory.

    cycles per step = max(R*V / 2, (R + V) / 2, 4)

with two multiply-adds and two loads per cycle, and a multiply-add's latency of four cycles, which
a step can't beat since the next one needs its results. Efficiency is R*V / 2 over that; after
the micro-kernel model of Goto and van de Geijn (ACM TOMS 34, 2008).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache

from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.schedule.roles import tile_roles
from tunebank.schedule.tiles import divisors
from tunebank.schedule.trace import Trace

_PER_CYCLE = 2.0
_LATENCY_CYCLES = 4.0
_SPILL_EFFICIENCY = 0.35
_ODD_VECTOR_EFFICIENCY = 0.1
_MAX_ROWS = 16
_LONG_BODY = 64  # vector instructions
_LONG_BODY_WEIGHT = 0.25
_ROLLED_COST = 0.3
_SPARE_REGISTERS = 2  # the broadcast, and one that LLVM keeps for itself


def tile_efficiency(rows: int, columns: int, device: Device) -> float:
    """Share of the peak rate that a register tile can reach, 0 to 1.

    Args:
        rows: product of the innermost factors of all spatial loops but the last.
        columns: innermost factor of the last spatial loop, in elements.
        device: for its registers.
    """
    vectors = math.ceil(columns / device.vector_lanes)
    useful = columns / (vectors * device.vector_lanes)
    accumulators = rows * vectors
    cycles = max(accumulators / _PER_CYCLE, (rows + vectors) / _PER_CYCLE, _LATENCY_CYCLES)
    efficiency = useful * accumulators / _PER_CYCLE / cycles
    if columns & (columns - 1):  # LLVM takes a vector of 24 or 48 apart into scalars
        efficiency *= _ODD_VECTOR_EFFICIENCY
    fits = accumulators + vectors + _SPARE_REGISTERS <= device.vector_registers
    return efficiency if fits else efficiency * _SPILL_EFFICIENCY


def register_tiles(extents: Sequence[int], device: Device) -> tuple[tuple[int, ...], ...]:
    """Register tiles for spatial loops of these extents, the best first.

    Args:
        extents: of the spatial loops, outermost first.
        device: for its registers.

    Returns:
        innermost factors, one per loop.
    """
    return _register_tiles(tuple(extents), device)


@lru_cache(maxsize=4096)
def _register_tiles(extents: tuple[int, ...], device: Device) -> tuple[tuple[int, ...], ...]:
    *outer, last = extents
    near = outer[-2:]
    choices = [[d for d in divisors(extent) if d <= _MAX_ROWS] for extent in near]
    columns = [d for d in divisors(last) if d <= 4 * device.vector_lanes]
    tiles = [
        (*[1] * (len(outer) - len(near)), *rows, column)
        for rows in itertools.product(*choices)
        for column in columns
    ]

    def merit(tile: tuple[int, ...]) -> tuple[float, float, tuple[int, ...]]:
        rows, vectors = math.prod(tile[:-1]), math.ceil(tile[-1] / device.vector_lanes)
        loads = (rows + vectors) / (rows * vectors)
        return (-round(tile_efficiency(rows, tile[-1], device), 3), loads, tile)

    return tuple(sorted(tiles, key=merit))


def register_tile(trace: Trace, kernel: Kernel) -> tuple[int, int] | None:
    """Rows and columns of the register tile that a trace gives the kernel's anchor.

    None if the trace does not tile every spatial loop of the anchor by itself.
    """
    factors = _anchor_factors(trace, kernel)
    if not factors or kernel.anchor is None:
        return None
    spatial = kernel.spatial_loops(kernel.anchor)
    if not spatial or any(loop not in factors for loop in spatial):
        return None
    inner = [factors[loop][-1] for loop in spatial]
    return math.prod(inner[:-1]), inner[-1]


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
    factors = _anchor_factors(trace, kernel)
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


def expected_octaves(trace: Trace, kernel: Kernel, device: Device) -> float:
    """How much slower than the best a schedule should be, in octaves, by its innermost tile.

    Unrolling should cover the register tile, whose accumulators else pass through memory, and
    little more: long bodies leave the registers' live ranges, and later the instruction cache,
    to chance, and take long to compile.
    """
    tile = register_tile(trace, kernel)
    if tile is None:
        return 0.0
    octaves = -math.log2(tile_efficiency(*tile, device))
    body = unrolled_vectors(trace, kernel, device)
    if body is not None:
        octaves += _LONG_BODY_WEIGHT * max(0.0, math.log2(body / _LONG_BODY))
        accumulators = tile[0] * math.ceil(tile[1] / device.vector_lanes)
        octaves += _ROLLED_COST if body < accumulators else 0.0
    return octaves


def _anchor_factors(trace: Trace, kernel: Kernel) -> dict[int, tuple[int, ...]]:
    """Tile factors of the anchor's loops, those that are tiled one by one."""
    return {
        role.loops[0]: tuple(int(factor) for factor in trace.decisions[index])
        for index, role in tile_roles(trace, kernel.loop_extents).items()
        if role.block == kernel.anchor and len(role.loops) == 1 and index in trace.decisions
    }
