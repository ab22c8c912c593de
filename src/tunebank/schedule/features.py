"""What a cost model sees of a schedule: numbers read off its trace, without applying it.

TVM's per-store features (Ansor, arXiv 2006.06762, section 5.2) need the scheduled program: some
ten milliseconds for each candidate. These take a fraction of one, so that hundreds of candidates
can be put in order before the first is applied.

    the kernel      work, traffic, and the extents of its anchor
    the device      its vectors and threads
    register tile   rows, columns, accumulators, what `estimate.py` expects of them
    tiles           the anchor's factors, level by level, over rows, columns and reduction
    the rest        tasks, working sets in bytes, compute locations, the kinds of the steps

Sizes are logarithms to the base 2: what matters is a size against another. A number that a
schedule does not have is NaN.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.schedule.estimate import (
    anchor_factors,
    expected_octaves,
    register_tile,
    unroll_limit,
    unrolled_vectors,
)
from tunebank.schedule.registers import column_period, tile_efficiency
from tunebank.schedule.trace import Trace

Features = npt.NDArray[np.float32]

_SPATIAL_LEVELS, _REDUCTION_LEVELS = 4, 2
"""Of MetaSchedule's tiling on a CPU: SSRSRS."""
_BYTES = 4
_KINDS = ("CacheWrite", "ComputeInline", "ReverseComputeAt", "RFactor", "SampleComputeLocation")

FEATURES = (
    *("work", "traffic", "intensity", "blocks", "spatial_loops", "reduction_loops"),
    *("rows", "columns", "columns_power_of_2", "last_row_extent", "reduction", "window", "before"),
    *("is_periodic", "vector_lanes", "vector_registers", "multiply_adds", "threads"),
    *("tile_rows", "tile_columns", "tile_vectors", "accumulators", "filled", "efficiency"),
    *("expected", "body", "unroll_limit"),
    *(f"rows_{level}" for level in range(_SPATIAL_LEVELS)),
    *(f"columns_{level}" for level in range(_SPATIAL_LEVELS)),
    *(f"reduction_{level}" for level in range(_REDUCTION_LEVELS)),
    *("innermost_reduction", "innermost_window"),
    *("tasks", "balance", "output_tile", "weight_tile", "row_tile"),
    *("first_location", "last_location", "steps"),
    *(f"{kind}_steps" for kind in _KINDS),
)
"""Their names, in order."""


def features(traces: Sequence[Trace], kernel: Kernel, device: Device) -> Features:
    """The features of some schedules of a kernel.

    Args:
        traces: canonical traces of the kernel, not programs of their own.
        kernel: the kernel.
        device: the device that it is compiled for.

    Returns:
        (traces, features).
    """
    common = (*_of_kernel(kernel), *_of_device(device))
    rows = [(*common, *_of_trace(trace, kernel, device)) for trace in traces]
    return np.array(rows, np.float32).reshape(len(rows), len(FEATURES))


@lru_cache(maxsize=512)
def _of_kernel(kernel: Kernel) -> tuple[float, ...]:
    anchor = kernel.anchor
    extents = kernel.loop_extents.get(anchor, ()) if anchor is not None else ()
    spatial, reduction = _loops(kernel)
    before = [
        math.prod(loops) for block, loops in kernel.loop_extents.items() if block < (anchor or 0)
    ]
    columns = extents[spatial[-1]] if spatial else 0
    work, traffic = _log(kernel.flops), _log(kernel.argument_bytes)
    return (
        *(work, traffic, work - traffic, len(kernel.sites), len(spatial), len(reduction)),
        _log(math.prod(extents[loop] for loop in spatial[:-1])),
        _log(columns),
        _log(columns & -columns),
        _log(extents[spatial[-2]] if len(spatial) > 1 else 1),
        _log(math.prod(extents[loop] for loop in reduction)),
        _log(math.prod(extents[loop] for loop in reduction[:-1])),
        _log(max(before, default=1)),
        float(column_period(kernel) is not None),
    )


def _of_device(device: Device) -> tuple[float, ...]:
    return device.vector_lanes, device.vector_registers, device.multiply_adds, device.threads


def _of_trace(trace: Trace, kernel: Kernel, device: Device) -> Iterator[float]:
    yield from _register_tile(trace, kernel, device)
    yield from _tiles(trace, kernel, device)
    located = [
        trace.decisions[index]
        for index, step in enumerate(trace.instructions)
        if step.kind == "SampleComputeLocation" and isinstance(trace.decisions.get(index), int)
    ]
    yield from (located[0], located[-1]) if located else (math.nan, math.nan)
    kinds = Counter(trace.structure)
    yield len(trace.instructions)
    yield from (kinds[kind] for kind in _KINDS)


def _register_tile(trace: Trace, kernel: Kernel, device: Device) -> Iterator[float]:
    tile = register_tile(trace, kernel)
    if tile is None:
        yield from [math.nan] * 6
    else:
        rows, columns = tile
        vectors = math.ceil(columns / device.vector_lanes)
        yield from (_log(rows), _log(columns), vectors, rows * vectors)
        yield columns / (vectors * device.vector_lanes)
        yield tile_efficiency(rows, columns, device)
    yield expected_octaves(trace, kernel, device)
    yield _log(unrolled_vectors(trace, kernel, device))
    yield _log(unroll_limit(trace))


def _tiles(trace: Trace, kernel: Kernel, device: Device) -> Iterator[float]:
    factors = anchor_factors(trace, kernel)
    spatial, reduction = _loops(kernel)
    yield from _by_level(factors, spatial[:-1], _SPATIAL_LEVELS)
    yield from _by_level(factors, spatial[-1:], _SPATIAL_LEVELS)
    yield from _by_level(factors, reduction, _REDUCTION_LEVELS)
    innermost = _product(factors, reduction[-1:], -1)
    window = _product(factors, reduction[:-1], -1)
    yield from (_log(innermost), _log(window))
    tasks = _product(factors, spatial, 0)
    if tasks is None:
        yield from [math.nan] * 5
        return
    yield _log(tasks)
    yield tasks / (math.ceil(tasks / device.threads) * device.threads)
    rows, columns = (
        _inner(factors, loops, _SPATIAL_LEVELS // 2) for loops in (spatial[:-1], spatial[-1:])
    )
    depth = (innermost or 1) * (window or 1)
    yield from (_log(area * _BYTES) for area in (rows * columns, depth * columns, depth * rows))


def _by_level(
    factors: dict[int, tuple[int, ...]], loops: Sequence[int], levels: int
) -> Iterator[float]:
    """Products of the factors of some loops, those that are tiled into so many levels."""
    tiled = [loop for loop in loops if len(factors.get(loop, ())) == levels]
    yield from (_log(_product(factors, tiled, level)) for level in range(levels))


def _product(factors: dict[int, tuple[int, ...]], loops: Sequence[int], level: int) -> int | None:
    """Of the loops' factors at a level; None if none of the loops is tiled."""
    found = [factors[loop][level] for loop in loops if loop in factors]
    return math.prod(found) if found else None


def _inner(factors: dict[int, tuple[int, ...]], loops: Sequence[int], level: int) -> int:
    """Product of the loops' factors from a level on."""
    return math.prod(math.prod(factors[loop][level:]) for loop in loops if loop in factors)


def _loops(kernel: Kernel) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Positions of the anchor's spatial loops and of its reductions."""
    if kernel.anchor is None:
        return (), ()
    spatial = kernel.spatial_loops(kernel.anchor)
    count = len(kernel.loop_extents.get(kernel.anchor, ()))
    return spatial, tuple(loop for loop in range(count) if loop not in spatial)


def _log(size: float | None) -> float:
    return math.nan if size is None else math.log2(max(size, 2.0**-20))
