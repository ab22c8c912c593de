"""A kernel's schedule carried over to a sibling, which takes the same weights.

The two differ in the extents of loops that the weights don't have (batch, rows, pixels): tile
factors of the loops that they share stay exactly as they are, and with them the packing of the
weights. The others are fitted, in several ways:

    nearest, rescaled   as for any donor; see `transfer/adapt.py`
    rows                the best register tile of the sibling's device whose columns are those of
                        the schedule: a batch of 1 wants fewer rows than one of 8

A trace names blocks by position. So it is tried wherever the kernels have as many blocks with
as many loops, even if their class keys differ, as those of a bias that is broadcast over a batch
of 1 and over one of 4 do; `Space.apply` tells whether it is legal.
"""

from __future__ import annotations

import math
from typing import Any

from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.schedule import Trace, tile_roles
from tunebank.schedule.estimate import expected_octaves, register_tile, unroll_choice
from tunebank.schedule.registers import column_period, register_tiles
from tunebank.schedule.tiles import fit_nearest, fit_rescaled
from tunebank.transfer import Level


def sibling_traces(trace: Trace, owner: Kernel, kernel: Kernel, device: Device) -> list[Trace]:
    """Variants of a schedule for a sibling of its kernel, the most promising first.

    Args:
        trace: the schedule.
        owner: the kernel that it was made for.
        kernel: the sibling.
        device: for its registers.
    """
    if _shape(owner) != _shape(kernel):
        return []
    variants = [_fitted(trace, kernel, fit) for fit in (fit_nearest, fit_rescaled)]
    variants.extend(_with_rows(variants[0], kernel, device))
    distinct = {variant.identity: variant for variant in variants}
    return sorted(distinct.values(), key=lambda one: expected_octaves(one, kernel, device))


def level_of(record_keys: tuple[str, str], kernel: Kernel) -> Level:
    """How a record relates to a kernel that its schedule was carried over to.

    Args:
        record_keys: key and class key of the record's kernel.
        kernel: the kernel.
    """
    if record_keys[0] == kernel.key:
        return "exact"
    return "class" if record_keys[1] == kernel.class_key else "anchor"


def _shape(kernel: Kernel) -> list[tuple[int, int]]:
    """By block how many loops it has; what a trace takes for granted."""
    return [(block, len(extents)) for block, extents in kernel.loop_extents.items()]


def _fitted(trace: Trace, kernel: Kernel, fit: Any) -> Trace:
    """The trace with its factors fitted where the kernel's extents are others."""
    return trace.with_decisions(
        {
            index: list(fit(given, role.extent, innermost_limit=role.innermost_limit))
            for index, role in tile_roles(trace, kernel.loop_extents).items()
            if (given := trace.decisions.get(index)) and math.prod(given) != role.extent
        }
    )


def _with_rows(trace: Trace, kernel: Kernel, device: Device) -> list[Trace]:
    """The trace with the best rows for its columns; none if it has no register tile."""
    current = register_tile(trace, kernel)
    if current is None or kernel.anchor is None:
        return []
    *outer, _ = spatial = kernel.spatial_loops(kernel.anchor)
    extents = [kernel.loop_extents[kernel.anchor][loop] for loop in spatial]
    tiles = register_tiles(extents, device, period=column_period(kernel))
    tile = next((tile for tile in tiles if tile[-1] == current[1]), None)
    if tile is None:
        return []
    rows = dict(zip(outer, tile, strict=False))
    changed: dict[int, Any] = {}
    for index, role in tile_roles(trace, kernel.loop_extents).items():
        if role.block == kernel.anchor and len(role.loops) == 1 and role.loops[0] in rows:
            wanted = (*trace.decisions[index][:-1], rows[role.loops[0]])
            limit = role.innermost_limit
            changed[index] = list(fit_nearest(wanted, role.extent, innermost_limit=limit))
    steps = [i for i, step in enumerate(trace.instructions) if step.kind == "SampleCategorical"]
    if steps:  # the last decides how far the loops are unrolled: over the rows
        changed[steps[-1]] = unroll_choice(trace.instructions[steps[-1]], math.prod(rows.values()))
    return [trace.with_decisions(changed)]
