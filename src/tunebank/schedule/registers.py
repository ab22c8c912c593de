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

from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.schedule.roles import tile_roles
from tunebank.schedule.tiles import divisors
from tunebank.schedule.trace import Trace

_PER_CYCLE = 2.0
_LATENCY_CYCLES = 4.0
_SPILL_EFFICIENCY = 0.35
_MAX_ROWS = 8
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
    cycles = max(
        accumulators / _PER_CYCLE, (rows + vectors) / _PER_CYCLE, _LATENCY_CYCLES
    )
    efficiency = useful * accumulators / _PER_CYCLE / cycles
    fits = accumulators + vectors + _SPARE_REGISTERS <= device.vector_registers
    return efficiency if fits else efficiency * _SPILL_EFFICIENCY


def register_tiles(extents: Sequence[int], device: Device) -> list[tuple[int, ...]]:
    """Register tiles for spatial loops of these extents, the best first.

    Args:
        extents: of the spatial loops, outermost first.
        device: for its registers.

    Returns:
        innermost factors, one per loop.
    """
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

    return sorted(tiles, key=merit)


def register_efficiency(trace: Trace, kernel: Kernel, device: Device) -> float:
    """Efficiency of the register tile that a trace gives the kernel's anchor; 1 if it has none."""
    if kernel.anchor is None:
        return 1.0
    spatial = kernel.spatial_loops(kernel.anchor)
    factors = {
        role.loops[0]: int(trace.decisions[index][-1])
        for index, role in tile_roles(trace, kernel.loop_extents).items()
        if role.block == kernel.anchor and len(role.loops) == 1 and index in trace.decisions
    }
    inner = [factors[loop] for loop in spatial if loop in factors]
    if len(inner) < len(spatial) or not inner:
        return 1.0
    return tile_efficiency(math.prod(inner[:-1]), inner[-1], device)
