"""Candidates of a kernel, the most promising first.

Without a measurement the order follows a cost in octaves of expected slow-down. The donor gives
five terms: a nearer match level adapts better, a donor that is slow on its own kernel is slow here,
a donor tuned for vectors of another width fills them badly, one for a core that computes more with
them or less is less sure to suit, and the further the extents are from the donor's the less its
tiles mean. The adapted schedule itself gives what `expect.py` expects of it; where that was learnt,
what the donor tells counts half. And since many donors give nearly the same, each further candidate
with one register tile and unrolling comes later.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tunebank.device import Device, recorded_device
from tunebank.kernel import Kernel
from tunebank.schedule import Trace, tile_roles
from tunebank.schedule.estimate import register_tile, unroll_limit
from tunebank.transfer.adapt import adapt
from tunebank.transfer.expect import Expectation
from tunebank.transfer.match import LEVELS, Donor

MAX_DONORS = 12
_LEVEL_COST = {"exact": 0.0, "class": 0.3, "anchor": 0.5}
_STANDING_WEIGHT = 0.7
_DISTANCE_WEIGHT = 0.1
_OTHER_VECTORS_COST = 0.5
_OTHER_RATE_COST = 0.2
_VARIANT_COST = 0.05
_REPEAT_COST = 0.1
_BESIDE_LEARNT = 0.5
"""What a donor's cost counts beside a learnt one: 113 kernels of seven models were measured under
some twenty candidates each, the cost model trained on other architectures. The first choice was
1.13 times as slow as the best with 0.25 and 0.5, 1.14 with 0, 1.16 with 1; without the cost model
1.24."""


@dataclass(frozen=True)
class Candidate:
    """A donor's schedule adapted to the target, not yet applied.

    Attributes:
        trace: the adapted schedule.
        donor: where it comes from; None for the target's own default schedule.
        cost: expected slow-down in octaves, comparable within one kernel.
    """

    trace: Trace
    donor: Donor | None
    cost: float = 0.0


def rank(
    kernel: Kernel,
    donors: Sequence[Donor],
    sketches: Iterable[Trace],
    device: Device,
    expectation: Expectation | None = None,
) -> list[Candidate]:
    """Adapts the nearest donors to the kernel; candidates, the most promising first.

    Args:
        kernel: the target.
        donors: its donors.
        sketches: traces of its design space.
        device: the device to compile for.
        expectation: what its schedules promise; None takes the estimate.
    """
    own = tuple(sketches)
    expected = expectation or Expectation(kernel, device)
    costs = {donor.record.id: _donor_cost(donor, kernel, device) for donor in donors}
    nearest = sorted(donors, key=lambda donor: (costs[donor.record.id], donor.record.id))
    adapted = [
        (donor, variant, trace)
        for donor in nearest[:MAX_DONORS]
        for variant, trace in enumerate(adapt(donor, kernel, own, device))
    ]
    promises = expected.octaves([trace for _, _, trace in adapted])
    candidates = []
    for (donor, variant, trace), octaves in zip(adapted, promises, strict=True):
        cost = costs[donor.record.id] + _VARIANT_COST * variant
        if donor.over_direct is not None:  # no gain by Winograd's algorithm beyond the donor's
            cost += max(octaves, -math.log2(donor.over_direct))
        elif variant or not donor.measured_on(device):
            cost = octaves + (_BESIDE_LEARNT * cost if expected.judges(trace) else cost)
        candidates.append(Candidate(trace, donor, cost))
    return _varied(sorted(candidates, key=lambda candidate: candidate.cost), kernel)


def _varied(candidates: Iterable[Candidate], kernel: Kernel) -> list[Candidate]:
    """The candidates in an order in which those that are alike don't follow each other."""
    seen: Counter[object] = Counter()
    varied = []
    for candidate in candidates:
        kind = (register_tile(candidate.trace, kernel), unroll_limit(candidate.trace))
        varied.append(replace(candidate, cost=candidate.cost + _REPEAT_COST * seen[kind]))
        seen[kind] += 1
    return sorted(varied, key=lambda candidate: candidate.cost)


def _donor_cost(donor: Donor, kernel: Kernel, device: Device) -> float:
    is_direct = donor.over_direct is None
    cost = _LEVEL_COST[donor.level] if is_direct else 0.0  # Winograd's adapts to any epilogue
    cost -= _STANDING_WEIGHT * math.log2(donor.standing)
    record = donor.record
    there = recorded_device(record.target, threads=record.threads, fingerprint=record.device)
    if there is None or there.vector_lanes != device.vector_lanes:
        cost += _OTHER_VECTORS_COST
    elif there.multiply_adds != device.multiply_adds:
        cost += _OTHER_RATE_COST
    return cost + _DISTANCE_WEIGHT * _distance(donor, kernel)


def _distance(donor: Donor, kernel: Kernel) -> float:
    """Sum over the anchor's tiled loops of the octaves between the donor's and the target's.

    A tiling's factors multiply to the donor's extent, so that its kernel need not be read.
    """
    if donor.level == LEVELS[0]:
        return 0.0
    trace = Trace.from_text(donor.record.trace)
    roles = tile_roles(trace, kernel.loop_extents)
    extents = [
        (role.extent, math.prod(trace.decisions[index]))
        for index, role in roles.items()
        if index in trace.decisions
    ]
    if not extents:  # blocks of an anchor match differ in number: compare the work instead
        return abs(math.log2(max(kernel.flops, 1.0) / max(donor.record.flops, 1.0)))
    return sum(abs(math.log2(target / own)) for target, own in extents)
