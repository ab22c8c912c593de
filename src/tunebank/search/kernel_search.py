"""The search on one kernel: what is queued, what was measured, what is best so far."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.measure import Measurement
from tunebank.schedule import IllegalScheduleError, Scheduled, Space, Trace, default_traces
from tunebank.schedule.estimate import expected_octaves
from tunebank.search.evolution import REFINE, CostModel, Evolution
from tunebank.search.plan import Choice, MatchLevel, Origin
from tunebank.transfer import Candidate, Donor, rank

_WORSE_TILE_OCTAVES = 0.5
_DEFAULT_COST = 0.1
"""Octaves by which a default schedule is expected to lose to the best; see `Candidate.cost`."""
_ELSEWHERE_COST = 0.5
"""The same of a donor measured on another machine, more, where nothing is measured on this one."""
_RELATIVE_COST = 0.4
"""The same of its relatives, more: the donors are tried first, and tell more."""


@dataclass(frozen=True)
class Proposal:
    """A legal schedule on its way to the measurer, and where it came from."""

    scheduled: Scheduled
    origin: Origin
    donor: Donor | None = None


class KernelSearch:
    """State of the search on one kernel. Measures nothing itself.

    The default schedule comes first, then the donors' candidates by rank, then refinement
    of the best.
    """

    def __init__(
        self, kernel: Kernel, donors: Sequence[Donor], device: Device, cost_model: CostModel
    ) -> None:
        self.kernel = kernel
        self._device = device
        self._cost_model = cost_model
        self._space = Space(kernel, device)
        self._donors = list(donors)
        self._candidates = rank(kernel, donors, self._space.sketches, device)
        self._seen: set[object] = set()
        self._evolution: Evolution | None = None
        self._measured: list[tuple[Scheduled, Measurement]] = []
        self._best: tuple[Proposal, float] | None = None
        self._untuned_us: float | None = None
        self._invalid = 0
        self._failures: list[Proposal] = []
        self._default, others = self._defaults()
        self._queue = deque(sorted([*self._candidates, *others], key=lambda one: one.cost))
        self.stale_rounds = 0
        """Rounds since the best latency last fell by a notable amount."""

    @property
    def best_us(self) -> float | None:
        """Latency of the best schedule measured so far."""
        return self._best[1] if self._best else None

    @property
    def has_candidates(self) -> bool:
        """Whether a donor's or a default's candidate is still waiting."""
        return bool(self._queue)

    @property
    def can_refine(self) -> bool:
        """Whether the design space has decisions to vary."""
        return self.kernel.anchor is not None and self._best is not None

    def first(self, donors: int) -> list[Proposal]:
        """The default schedule and the best-ranked donors' candidates."""
        default = [self._default] if self._default is not None else []
        return default + self._next_candidates(donors)

    def propose(self, count: int) -> list[Proposal]:
        """The next schedules to measure: donors' candidates, then refinements of the best."""
        proposals = self._next_candidates(count)
        if not proposals and self.can_refine:
            proposals = self._refinements(count)
        return proposals

    def observe(self, measured: Sequence[tuple[Proposal, Measurement]]) -> None:
        """Takes in measurements of this kernel's proposals."""
        before = self.best_us
        for proposal, result in measured:
            self._measured.append((proposal.scheduled, result))
            latency = result.latency_us
            if latency is None:
                self._failures.append(proposal)
                continue
            if proposal is self._default:
                self._untuned_us = latency
            if result.checked and (self._best is None or latency < self._best[1]):
                self._best = (proposal, latency)
        if self._evolution is not None:
            self._evolution.observe([(p.scheduled, result) for p, result in measured])
        improved = before is None or (self.best_us or before) < 0.98 * before
        self.stale_rounds = 0 if improved else self.stale_rounds + 1

    def learn(self, measured: Sequence[tuple[Proposal, Measurement]]) -> None:
        """Lets the cost model learn from measurements of this kernel."""
        pairs = [(proposal.scheduled, result) for proposal, result in measured]
        self._cost_model.learn(self._space.context, pairs, kernel_key=self.kernel.key)

    def choice(self) -> Choice:
        """The choice as it stands: the best measured, else the best-ranked, else the default."""
        proposal, latency = self._best or (self._unmeasured(), None)
        donor = proposal.donor if proposal else None
        nearest = donor or (self._donors[0] if self._donors else None)
        match: MatchLevel = nearest.level if nearest else "none"
        return Choice(
            kernel=self.kernel,
            scheduled=proposal.scheduled if proposal else None,
            origin=proposal.origin if proposal else "unscheduled",
            match=match,
            source=donor.record.source if donor else "",
            record_id=donor.record.id if donor else "",
            latency_us=latency,
            untuned_us=self._untuned_us,
            candidates=len(self._candidates),
            measured=len(self._measured),
            invalid=self._invalid,
            failed=len(self._failures),
        )

    def _unmeasured(self) -> Proposal | None:
        """The better one of the best-ranked candidate and the default, by expectation."""
        default = self._default if self._default not in self._failures else None
        if default is not None and self._queue:
            first = self._queue[0]
            here = first.donor and first.donor.record.device == self._device.fingerprint
            cost = first.cost + (0.0 if here else _ELSEWHERE_COST)
            if self._expected(default.scheduled.trace) <= cost:
                return default
        candidates = self._next_candidates(1)
        return candidates[0] if candidates else default

    def _defaults(self) -> tuple[Proposal | None, list[Candidate]]:
        """The kernel's default schedule, and its relatives as candidates."""
        traces = deque(default_traces(self._space))
        while traces:
            try:
                default = Proposal(self._space.apply(traces.popleft()), "default")
            except IllegalScheduleError:
                continue
            self._seen.add(default.scheduled.trace.identity)
            others = [
                Candidate(trace, None, self._expected(trace) + _RELATIVE_COST) for trace in traces
            ]
            return default, others
        return None, []

    def _expected(self, trace: Trace) -> float:
        """Expected cost of a default schedule; see `Candidate.cost`."""
        return _DEFAULT_COST + expected_octaves(trace, self.kernel, self._device)

    def _next_candidates(self, count: int) -> list[Proposal]:
        """Legal candidates not seen yet, by rank."""
        proposals: list[Proposal] = []
        while self._queue and len(proposals) < count:
            candidate = self._queue.popleft()
            try:
                scheduled = self._space.apply(candidate.trace)
            except IllegalScheduleError:
                self._invalid += 1
                continue
            if scheduled.trace.identity not in self._seen:
                self._seen.add(scheduled.trace.identity)
                origin: Origin = "transfer" if candidate.donor else "default"
                proposals.append(Proposal(scheduled, origin, candidate.donor))
        return proposals

    def _refinements(self, count: int) -> list[Proposal]:
        if self._evolution is None:
            self._evolution = Evolution(self.kernel, self._device, self._cost_model, REFINE)
            self._evolution.observe(self._measured)
        fresh = [
            scheduled
            for scheduled in self._evolution.propose()
            if scheduled.trace.identity not in self._seen and self._is_worth_a_build(scheduled)
        ][:count]
        self._seen.update(scheduled.trace.identity for scheduled in fresh)
        donor = self._best[0].donor if self._best else None
        return [Proposal(scheduled, "refine", donor) for scheduled in fresh]

    def _is_worth_a_build(self, scheduled: Scheduled) -> bool:
        """Whether the innermost tile is not much worse than that of the best."""
        if self._best is None:
            return True
        best = expected_octaves(self._best[0].scheduled.trace, self.kernel, self._device)
        own = expected_octaves(scheduled.trace, self.kernel, self._device)
        return own <= best + _WORSE_TILE_OCTAVES
