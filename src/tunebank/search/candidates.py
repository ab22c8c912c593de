"""What there is to try on one kernel, in order: default, siblings' offers, donors by rank."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.schedule import IllegalScheduleError, Scheduled, Space, Trace, default_traces
from tunebank.schedule.estimate import expected_octaves
from tunebank.schedule.winograd import is_winograd, winograd_traces
from tunebank.search.plan import Origin
from tunebank.transfer import Candidate, Donor, Expectation, PretrainedModel, rank

_DEFAULT_COST = 0.1
"""Octaves by which a default schedule is expected to lose to the best; see `Candidate.cost`."""
_RELATIVE_COST = 0.4
"""The same of its relatives, more: the donors are tried first, and tell more."""
_LEARNT_COST = 0.2
"""The same of a relative that the cost model prefers, where nothing is measured."""
_UNMEASURED_COST = 0.15
"""The same of a donor, more, where nothing is measured: of many trials the one that seemed fastest
was partly lucky."""
_ELSEWHERE_COST = 0.5
"""The same of a donor measured on another machine."""
_ALGORITHM_COST = 0.2
"""The same of Winograd's algorithm, about the error of its estimate: what it chose so of 54
convolutions on an Emerald Rapids was at worst 3 % slower than the best direct schedule."""


@dataclass(frozen=True)
class Proposal:
    """A legal schedule on its way to the measurer, and where it came from."""

    scheduled: Scheduled
    origin: Origin
    donor: Donor | None = None


class Candidates:
    """The candidates of one kernel. Each schedule is proposed once.

    Args:
        kernel: the kernel.
        donors: its donors.
        device: the device to compile for.
        space: the kernel's design space.
        ruled_out: identities of schedules that are known to be wrong; none of them is proposed.
        winograd: whether Winograd's algorithm may be used.
        pretrained: the cost model to put them in order by; None leaves it to the estimate.

    Attributes:
        default: the default schedule; None if none is legal.
        distinct: how many candidates the donors and the siblings gave.
        invalid: how many of them were refused before any build.
    """

    def __init__(
        self,
        kernel: Kernel,
        donors: Sequence[Donor],
        device: Device,
        space: Space,
        *,
        ruled_out: Collection[object] = (),
        winograd: bool,
        pretrained: PretrainedModel | None = None,
    ) -> None:
        self._kernel = kernel
        self._device = device
        self._space = space
        self._ruled_out = frozenset(ruled_out)
        self._seen: set[object] = set(ruled_out)
        self._held: deque[Proposal] = deque()
        self._promising: Proposal | None = None
        self._offers: dict[str, deque[Candidate]] = {}
        defaults = default_traces(space)
        self._expectation = Expectation(kernel, device, pretrained)
        ranked = rank(kernel, donors, space.sketches, device, self._expectation) if donors else []
        ranked = [one for one in ranked if winograd or not is_winograd(one.trace)]
        self._measured = _measured_costs(donors, device)
        self.default, relatives = self._defaults(defaults)
        others = [*relatives, *(self._winograd() if winograd else [])]
        self._queue = deque(sorted([*ranked, *others], key=lambda one: one.cost))
        gains = [
            donor.over_direct
            for donor in donors
            if donor.over_direct is not None and donor.record.device == device.fingerprint
        ]
        self._least_winograd_cost = -math.log2(max(gains)) if gains else -math.inf
        self.distinct = len(ranked)
        self.invalid = 0

    def __bool__(self) -> bool:
        """Whether one is still waiting."""
        return bool(self._held or self._queue) or any(self._offers.values())

    def offer(self, sibling: str, candidates: Sequence[Candidate]) -> None:
        """Puts a sibling's candidates first in line, in place of those that it offered before."""
        self._offers[sibling] = deque(candidates)

    def take(self, count: int) -> list[Proposal]:
        """Legal candidates not seen yet, by rank."""
        proposals = [self._held.popleft() for _ in range(min(count, len(self._held)))]
        while len(proposals) < count and (candidate := self._next()) is not None:
            if (proposal := self._new(candidate)) is not None:
                proposals.append(proposal)
        return proposals

    def first_legal(
        self, candidates: Iterable[Candidate], *, accept: Callable[[Scheduled], bool]
    ) -> Proposal | None:
        """The first legal one of some candidates that is accepted, seen before or not."""
        for candidate in candidates:
            try:
                scheduled = self._space.apply(candidate.trace)
            except IllegalScheduleError:
                continue
            if scheduled.trace.identity not in self._ruled_out and accept(scheduled):
                self._seen.add(scheduled.trace.identity)
                self.distinct += candidate.donor is not None
                return _proposal(scheduled, candidate)
        return None

    def is_new(self, scheduled: Scheduled) -> bool:
        """Whether a schedule was not seen before; it is from now on."""
        identity = scheduled.trace.identity
        if identity in self._seen:
            return False
        self._seen.add(identity)
        return True

    def unmeasured(self, *, failed: Collection[Proposal]) -> Proposal | None:
        """The best by expectation: the default, or a candidate, which is the next to be taken.

        It stays the same, taken or not, until it has failed.

        Args:
            failed: proposals that were measured, and failed.
        """
        if self._promising is None or self._promising in failed:
            self._promising = self._most_promising(failed)
        return self._promising

    def _most_promising(self, failed: Collection[Proposal]) -> Proposal | None:
        default = self.default if self.default not in failed else None
        limit = math.inf if default is None else self._default_cost(default)
        for candidate in sorted(self._queue, key=self._unmeasured_cost):
            if default is not None and limit <= self._unmeasured_cost(candidate):
                break
            self._queue.remove(candidate)
            if (proposal := self._new(candidate)) is not None:
                self._held.append(proposal)
                return proposal
        return default

    def _default_cost(self, default: Proposal) -> float:
        trace = default.scheduled.trace
        return self._measured.get(trace.identity, self._expected(trace))

    def _unmeasured_cost(self, candidate: Candidate) -> float:
        """What its cost is without a measurement here: only what was measured here is trusted."""
        donor = candidate.donor
        if donor is not None and donor.record.device == self._device.fingerprint:
            return candidate.cost + _UNMEASURED_COST
        if is_winograd(candidate.trace):  # it gains no more than any donor by it
            return max(candidate.cost, self._least_winograd_cost) + _ALGORITHM_COST
        if donor is None:  # a relative of the default: the first is right, unless it was learnt
            is_judged = self._expectation.judges(candidate.trace) and not self._measured
            return candidate.cost - _RELATIVE_COST + _LEARNT_COST if is_judged else math.inf
        return candidate.cost + _ELSEWHERE_COST

    def _new(self, candidate: Candidate) -> Proposal | None:
        """A candidate as a proposal; None if it is illegal, or was seen before."""
        try:
            scheduled = self._space.apply(candidate.trace)
        except IllegalScheduleError:
            self.invalid += 1
            return None
        return _proposal(scheduled, candidate) if self.is_new(scheduled) else None

    def _next(self) -> Candidate | None:
        """What siblings offered comes first."""
        for offers in self._offers.values():
            if offers:
                self.distinct += 1
                return offers.popleft()
        return self._queue.popleft() if self._queue else None

    def _defaults(self, defaults: Sequence[Trace]) -> tuple[Proposal | None, list[Candidate]]:
        """The kernel's default schedule, and its relatives as candidates."""
        traces = deque(defaults)
        while traces:
            try:
                default = Proposal(self._space.apply(traces.popleft()), "default")
            except IllegalScheduleError:
                continue
            if not self.is_new(default.scheduled):
                continue
            return default, [
                Candidate(trace, None, octaves + _RELATIVE_COST)
                for trace, octaves in zip(traces, self._expectation.octaves(traces), strict=True)
            ]
        return None, []

    def _winograd(self) -> list[Candidate]:
        """The kernel by another algorithm, where that promises more."""
        return [
            Candidate(trace, None, expected_octaves(trace, self._kernel, self._device))
            for trace in winograd_traces(self._kernel, self._device)
        ]

    def _expected(self, trace: Trace) -> float:
        """Expected cost of a default schedule; see `Candidate.cost`."""
        (octaves,) = self._expectation.octaves([trace])
        return _DEFAULT_COST + octaves


def _measured_costs(donors: Sequence[Donor], device: Device) -> dict[object, float]:
    """What schedules lose to the best, in octaves, of those measured on this very kernel here."""
    return {
        Trace.from_text(donor.record.trace).identity: -math.log2(donor.standing)
        for donor in donors
        if donor.measured_on(device)
    }


def _proposal(scheduled: Scheduled, candidate: Candidate) -> Proposal:
    without_donor: Origin = "algorithm" if is_winograd(candidate.trace) else "default"
    origin: Origin = "transfer" if candidate.donor else without_donor
    return Proposal(scheduled, origin, candidate.donor)
