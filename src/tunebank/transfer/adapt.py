"""A donor's schedule carried over to a target kernel.

    exact    the donor's trace as it is
    class    the donor's trace, its tile factors fitted to the target's extents
    anchor   the target's own sketches; the donor's factors of the anchor block go to the loops
             of the same role, its unrolling to the target's; the donor's instructions are not
             replayed, since they name blocks that the target may lack

Each donor gives several variants: factors by the nearest divisor, factors rescaled, and the
nearest ones around each of the best register tiles of the target's own device, which is then
unrolled and nothing more,

    (7, 1, 4, 2 | 32 wide)   →   (7, 1, 2, 4 | 16 wide)      AVX-512's tile → one for AVX2

A donor's Winograd schedule keeps its parameters, where they fit.

Nothing is applied to a program here: a variant is a trace, and `tunebank.schedule.Space.apply`
decides whether it is legal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from tunebank.bank import Record
from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.schedule import Trace, tile_roles
from tunebank.schedule.estimate import unroll_choice, unroll_limit
from tunebank.schedule.programs import is_own_program
from tunebank.schedule.registers import anchor_tiles
from tunebank.schedule.tiles import fit_nearest, fit_rescaled
from tunebank.schedule.winograd import fits, parameters_of
from tunebank.transfer.match import Donor

_FITS = (fit_nearest, fit_rescaled)
_REGISTER_TILES = 3
_SKETCHES = 2
_ANCHOR = -1
"""Stands for the position of the anchor block, which differs between two kernels."""

_Factors = dict[tuple[int, tuple[int, ...], int], tuple[int, ...]]
"""Tile factors by role: block, loops of the block, number of levels."""
_Fit = Callable[..., tuple[int, ...]]


def adapt(donor: Donor, kernel: Kernel, sketches: Iterable[Trace], device: Device) -> list[Trace]:
    """Variants of the donor's schedule for the kernel, the most faithful first.

    Args:
        donor: a donor that `match` gave for the kernel.
        kernel: the target.
        sketches: traces of the target's own design space, for an anchor match.
        device: the device to fit the register tile to.
    """
    trace = Trace.from_text(donor.record.trace)
    if (winograd := parameters_of(trace)) is not None:
        return [trace] if fits(kernel, device, winograd) else []
    if is_own_program(trace):
        return []  # the target's own default, if it fits
    if donor.level in ("exact", "class"):
        given, bases = _own_factors(trace, kernel), [trace]
    else:
        given = _donor_factors(trace, donor.record)
        bases = _matching_sketches(trace, given, kernel, sketches)[:_SKETCHES]
    variants = [trace] if donor.level == "exact" else []
    for base in bases:
        base = _unrolled(base, unroll_limit(trace))
        variants.extend(_fitted(base, given, kernel, fit, {}) for fit in _FITS)
        for tile in anchor_tiles(kernel, device, count=_REGISTER_TILES):
            rows = math.prod(list(tile.values())[:-1])
            variants.append(_unrolled(_fitted(base, given, kernel, fit_nearest, tile), rows))
    return list({variant.identity: variant for variant in variants}.values())


def _own_factors(trace: Trace, kernel: Kernel) -> _Factors:
    """The donor's factors by role, where the donor's blocks are the target's."""
    return {
        (role.block, role.loops, role.levels): tuple(trace.decisions[index])
        for index, role in tile_roles(trace, kernel.loop_extents).items()
        if index in trace.decisions
    }


def _donor_factors(trace: Trace, record: Record) -> _Factors:
    """The donor's factors of its anchor block by role."""
    kernel = _donor_kernel(record.kernel_key, record.kernel_ir)
    own = _own_factors(trace, kernel)
    return {(_ANCHOR, *key[1:]): value for key, value in own.items() if key[0] == kernel.anchor}


def _matching_sketches(
    trace: Trace, given: _Factors, kernel: Kernel, sketches: Iterable[Trace]
) -> list[Trace]:
    """The target's sketches that tile the anchor as the donor does; the most alike first."""
    matching = [
        sketch
        for sketch in sketches
        if set(given)
        <= {
            (_ANCHOR, role.loops, role.levels)
            for role in tile_roles(sketch, kernel.loop_extents).values()
            if role.block == kernel.anchor
        }
    ]
    return sorted(matching, key=lambda sketch: sketch.structure != trace.structure)


def _fitted(base: Trace, given: _Factors, kernel: Kernel, fit: _Fit, tile: dict[int, int]) -> Trace:
    """The base with the donor's factors fitted to the target's extents.

    Args:
        base: the trace to change.
        given: the donor's factors by role.
        kernel: the target.
        fit: how to fit them.
        tile: by spatial loop of the anchor, an innermost factor to take instead.
    """
    changed: dict[int, Any] = {}
    for index, role in tile_roles(base, kernel.loop_extents).items():
        is_anchor = role.block == kernel.anchor
        key = (role.block, role.loops, role.levels)
        factors = given.get(key) or (given.get((_ANCHOR, *key[1:])) if is_anchor else None)
        if factors is None:
            continue
        if is_anchor and len(role.loops) == 1 and role.loops[0] in tile:
            factors = (*factors[:-1], tile[role.loops[0]])
        changed[index] = list(fit(factors, role.extent, innermost_limit=role.innermost_limit))
    return base.with_decisions(changed)


def _unrolled(base: Trace, limit: int | None) -> Trace:
    """The base with its unrolling limit set to the smallest choice that is not below.

    Args:
        base: the trace to change; its last categorical step decides the unrolling.
        limit: the limit wanted; None leaves it as it is.
    """
    steps = [i for i, step in enumerate(base.instructions) if step.kind == "SampleCategorical"]
    if limit is None or not steps:
        return base
    return base.with_decisions({steps[-1]: unroll_choice(base.instructions[steps[-1]], limit)})


@lru_cache(maxsize=512)
def _donor_kernel(key: str, text: str) -> Kernel:
    return Kernel.from_ir(text, name=key)
