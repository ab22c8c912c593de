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
from typing import Any

from tvm import ir, tirx

from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.schedule.tiles import divisors, uneven

_PER_CYCLE = 2.0
_LATENCY_CYCLES = 4.0
_SPILL_EFFICIENCY = 0.35
_ODD_VECTOR_EFFICIENCY = 0.1
_NARROW, _NARROW_EFFICIENCY = 8, 0.3
"""Of fewer columns TVM makes vectors that lie across rows, and takes them apart where rows are
padded: a 3x3 convolution to 4 channels reached 35 GFLOP/s where this model promised 110."""
_MAX_ROWS = 16
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
    efficiency = useful * whole_vectors_efficiency(rows, vectors, device)
    if 1 < columns < _NARROW:
        efficiency *= _NARROW_EFFICIENCY
    # LLVM takes a vector of 24 or 48 apart into scalars
    return efficiency * _ODD_VECTOR_EFFICIENCY if columns & (columns - 1) else efficiency


def whole_vectors_efficiency(rows: int, vectors: int, device: Device) -> float:
    """The same of a tile of whole vectors, each of which the program names by itself."""
    accumulators = rows * vectors
    cycles = max(accumulators / _PER_CYCLE, (rows + vectors) / _PER_CYCLE, _LATENCY_CYCLES)
    efficiency = accumulators / _PER_CYCLE / cycles
    fits = accumulators + vectors + _SPARE_REGISTERS <= device.vector_registers
    return efficiency if fits else efficiency * _SPILL_EFFICIENCY


def rows_beside(vectors: int, device: Device, *, most: int) -> int:
    """As many rows as leave registers for the vectors, a value of X, and one for LLVM."""
    return max(1, min(most, (device.vector_registers - vectors - _SPARE_REGISTERS) // vectors))


def uneven_cycles(extent: int, rows: int, vectors: int, device: Device) -> float:
    """Time of an extent in uneven tiles of whole vectors; at the peak rate it were the extent."""
    return sum(
        count * size / whole_vectors_efficiency(size, vectors, device)
        for count, size in uneven(extent, rows)
        if count
    )


def register_tiles(
    extents: Sequence[int], device: Device, *, period: int | None = None
) -> tuple[tuple[int, ...], ...]:
    """Register tiles for spatial loops of these extents, the best first.

    Args:
        extents: of the spatial loops, outermost first.
        device: for its registers.
        period: see `column_period`.

    Returns:
        innermost factors, one per loop.
    """
    return _register_tiles(tuple(extents), device, period)


@lru_cache(maxsize=4096)
def _register_tiles(
    extents: tuple[int, ...], device: Device, period: int | None
) -> tuple[tuple[int, ...], ...]:
    *outer, last = extents
    near = outer[-2:]
    choices = [[d for d in divisors(extent) if d <= _MAX_ROWS] for extent in near]
    columns = [
        d
        for d in divisors(last)
        if d <= 4 * device.vector_lanes and (period is None or period % d == 0)
    ]
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


def anchor_tiles(kernel: Kernel, device: Device, *, count: int) -> list[dict[int, int]]:
    """The best register tiles of a kernel's anchor, as innermost factors by spatial loop."""
    if kernel.anchor is None or kernel.anchor not in kernel.loop_extents:
        return []
    spatial = kernel.spatial_loops(kernel.anchor)
    extents = [kernel.loop_extents[kernel.anchor][loop] for loop in spatial]
    if not extents:
        return []
    tiles = register_tiles(extents, device, period=column_period(kernel))[:count]
    return [dict(zip(spatial, tile, strict=True)) for tile in tiles]


@lru_cache(maxsize=1024)
def column_period(kernel: Kernel) -> int | None:
    """Within how many columns the anchor reads from one place; None if from one in all.

    A grouped convolution reads `x[..., c // 68 * 68 + rc]`: a vector of channels that lies across
    two groups would have to gather its inputs one by one.
    """
    if kernel.anchor is None:
        return None
    block = kernel.sites[kernel.anchor].block
    spatial = kernel.spatial_loops(kernel.anchor)
    if not spatial:
        return None
    last = block.iter_vars[spatial[-1]].var
    return _divisor_of(block.body, last)


def _divisor_of(node: Any, var: Any) -> int | None:
    """The constant that the variable is divided by somewhere in a statement or expression."""
    if isinstance(node, tirx.FloorDiv) and node.a.same_as(var) and isinstance(node.b, tirx.IntImm):
        return int(node.b)
    if isinstance(node, tirx.BufferStore):
        parts = [node.value, *node.indices]
    elif isinstance(node, ir.TensorLoad):
        parts = list(node.indices)
    else:
        parts = [getattr(node, name) for name in ("a", "b", "value") if hasattr(node, name)]
    found = (_divisor_of(part, var) for part in parts)
    return next((period for period in found if period is not None), None)
