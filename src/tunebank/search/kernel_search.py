"""The search on one kernel: what was measured, what is best so far, what is worth trying next."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.measure import Measurement
from tunebank.schedule import IllegalScheduleError, Scheduled, Space, Trace
from tunebank.schedule.estimate import expected_octaves
from tunebank.search.candidates import Candidates, Proposal
from tunebank.search.evolution import REFINE, CostModel, Evolution
from tunebank.search.neighbours import neighbours
from tunebank.search.plan import Choice, MatchLevel
from tunebank.transfer import Candidate, Donor, PretrainedModel

ALTERNATIVES = 2
"""How many schedules beside the chosen and the default one are tried in the model, at most."""
_NEAR = 1.25
"""How many times slower alone than the best such a one may be."""
_NEAR_DEFAULT = 2.0
"""The same of the default, the yardstick: it was measured once alone, maybe in a bad moment."""
_DONORS_FIRST = 16
"""Schedules that are measured before the best of them is refined."""
_WORSE_TILE_OCTAVES = 0.5
_PARENT = 1.15
"""How many times slower than the best schedule one may be that is worth refining."""


@dataclass(frozen=True)
class Chosen:
    """What a kernel would get now.

    Attributes:
        proposal: the schedule, and where it came from; None leaves the kernel unscheduled.
        result: its measurement; None if it was not measured.
    """

    proposal: Proposal | None
    result: Measurement | None = None

    @property
    def latency_us(self) -> float | None:
        """Its measured latency."""
        return self.result.latency_us if self.result is not None else None


class KernelSearch:
    """State of the search on one kernel. Measures nothing itself.

    What it would get unmeasured and the default schedule come first, then what siblings offer,
    then the donors' candidates by rank, then refinement of the best.
    """

    def __init__(
        self,
        kernel: Kernel,
        donors: Sequence[Donor],
        device: Device,
        cost_model: CostModel,
        *,
        ruled_out: Collection[object] = (),
        winograd: bool = True,
        pretrained: PretrainedModel | None = None,
    ) -> None:
        self.kernel = kernel
        self._device = device
        self._cost_model = cost_model
        self._space = Space(kernel, device)
        self._donors = list(donors)
        self._candidates = Candidates(
            kernel,
            donors,
            device,
            self._space,
            ruled_out=ruled_out,
            winograd=winograd,
            pretrained=pretrained,
        )
        self._evolution: Evolution | None = None
        self._measured: list[tuple[Proposal, Measurement]] = []
        self._tried: set[object] = set()
        self._best: Chosen | None = None
        self._parent: Chosen | None = None
        self._neighbours: deque[Trace] = deque()
        self._untuned_us: float | None = None
        self._failures: list[Proposal] = []
        self.stale_rounds = 0
        """Rounds since the best latency last fell by a notable amount."""

    @property
    def best_us(self) -> float | None:
        """Latency of the best schedule measured so far."""
        return self._best.latency_us if self._best else None

    @property
    def best(self) -> Chosen | None:
        """The best schedule that was measured and whose numbers agreed."""
        return self._best

    @property
    def measured(self) -> Sequence[tuple[Proposal, Measurement]]:
        """All that was measured, in order."""
        return self._measured

    @property
    def has_candidates(self) -> bool:
        """Whether a donor's, a sibling's or a default's candidate is still waiting."""
        return bool(self._candidates)

    @property
    def can_refine(self) -> bool:
        """Whether there may be something to vary that is the best, or not far behind."""
        return bool(self._neighbours) or self._can_evolve

    @property
    def _can_evolve(self) -> bool:
        """Whether a schedule of MetaSchedule's space is the best, or not far behind."""
        parent_us = self._parent.latency_us if self._parent is not None else None
        if self.kernel.anchor is None or parent_us is None or self.best_us is None:
            return False
        return parent_us <= _PARENT * self.best_us

    def first(self, donors: int) -> list[Proposal]:
        """What it would get unmeasured, the default schedule, and the best-ranked candidates.

        In that order: cut short, a search gives what it would have given without measuring.

        Args:
            donors: how many candidates beside the default.
        """
        default, promising = self._candidates.default, self._candidates.unmeasured(failed=())
        others = self._candidates.take(donors)
        if default is None:
            return others
        leading = promising is not default
        return [*others[:leading], default, *others[leading:]]

    def offer(self, sibling: str, candidates: Sequence[Candidate]) -> None:
        """Puts a sibling's candidates first in line, in place of those that it offered before."""
        self._candidates.offer(sibling, candidates)

    def propose(self, count: int) -> list[Proposal]:
        """The next schedules to measure: donors' candidates, and refinements of the best.

        The first are donors' alone, then half of them, as long as there are some.
        """
        may_refine = self.can_refine and len(self._measured) >= _DONORS_FIRST
        proposals = self._candidates.take(count // 2 if may_refine else count)
        if self.can_refine and (may_refine or not proposals):
            proposals += self._refinements(count - len(proposals))
        return proposals

    def observe(self, measured: Sequence[tuple[Proposal, Measurement]]) -> None:
        """Takes in measurements of this kernel's proposals."""
        before = self.best_us
        for proposal, result in measured:
            self._measured.append((proposal, result))
            self._tried.add(proposal.scheduled.trace.identity)
            latency = result.latency_us
            if latency is None:
                self._failures.append(proposal)
                continue
            if proposal is self._candidates.default:
                self._untuned_us = latency
            if proposal.scheduled.schedule is not None and _is_faster(latency, self._parent):
                self._parent = Chosen(proposal, result)
            if result.checked and _is_faster(latency, self._best):
                self._best = Chosen(proposal, result)
                self._neighbours = deque(neighbours(proposal.scheduled.trace))
        if self._evolution is not None:
            self._evolution.observe([(p.scheduled, result) for p, result in measured])
        improved = before is None or (self.best_us or before) < 0.98 * before
        self.stale_rounds = 0 if improved else self.stale_rounds + 1

    def learn(self, measured: Sequence[tuple[Proposal, Measurement]]) -> None:
        """Lets the cost model learn from measurements of this kernel."""
        pairs = [(proposal.scheduled, result) for proposal, result in measured]
        self._cost_model.learn(self._space.context, pairs, kernel_key=self.kernel.key)

    def chosen(self) -> Chosen:
        """What stands now: the best measured, else the best-ranked, else the default."""
        return self._best or Chosen(self._candidates.unmeasured(failed=self._failures))

    def choice(self, chosen: Chosen) -> Choice:
        """The search on this kernel, ended with this schedule."""
        default = self._candidates.default
        defaults = [one for one in self._near(chosen, _NEAR_DEFAULT) if one.proposal is default]
        others = [one for one in self._near(chosen, _NEAR) if one.proposal is not default]
        return replace(
            self._choice(chosen),
            default=self._choice(defaults[0]) if defaults else None,
            alternatives=tuple(self._choice(other) for other in others[:ALTERNATIVES]),
        )

    def _choice(self, chosen: Chosen) -> Choice:
        proposal = chosen.proposal
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
            latency_us=chosen.latency_us,
            untuned_us=self._untuned_us,
            candidates=self._candidates.distinct,
            measured=len(self._measured),
            invalid=self._candidates.invalid,
            failed=len(self._failures),
            wrong=sum(result.status == "wrong" for _, result in self._measured),
            donors_us=self._donors_us(),
            checked=chosen.result is not None and chosen.result.checked,
        )

    def _near(self, chosen: Chosen, times: float) -> list[Chosen]:
        """What else was measured and is at most so many times slower, the fastest first."""
        if chosen.latency_us is None:
            return []
        limit_us = times * chosen.latency_us
        others = [
            (result.latency_us, Chosen(proposal, result))
            for proposal, result in self._measured
            if proposal is not chosen.proposal
            and result.latency_us is not None
            and result.latency_us <= limit_us
        ]
        return [one for _, one in sorted(others, key=lambda pair: pair[0])]

    def _donors_us(self) -> dict[str, float]:
        """By model, the latency of the fastest candidate that came from it."""
        fastest: dict[str, float] = {}
        for proposal, result in self._measured:
            if proposal.origin == "transfer" and proposal.donor and result.latency_us is not None:
                source = proposal.donor.record.source
                fastest[source] = min(result.latency_us, fastest.get(source, math.inf))
        return fastest

    def untried(
        self, candidates: Iterable[Candidate], *, accept: Callable[[Scheduled], bool]
    ) -> Proposal | None:
        """The first legal one of some candidates that was not measured and that is accepted."""
        return self._candidates.first_legal(
            candidates,
            accept=lambda one: one.trace.identity not in self._tried and accept(one),
        )

    def _refinements(self, count: int) -> list[Proposal]:
        beside = islice(self._beside_the_best(), count)
        donor = self._best.proposal.donor if self._best and self._best.proposal else None
        proposals = [Proposal(scheduled, "refine", donor) for scheduled in beside]
        if self._can_evolve and len(proposals) < count:
            proposals += self._evolved(count - len(proposals))
        return proposals

    def _beside_the_best(self) -> Iterator[Scheduled]:
        """Programs of our own with other parameters."""
        while self._neighbours:
            try:
                scheduled = self._space.apply(self._neighbours.popleft())
            except IllegalScheduleError:
                continue
            if self._candidates.is_new(scheduled):
                yield scheduled

    def _evolved(self, count: int) -> list[Proposal]:
        if self._evolution is None:
            self._evolution = Evolution(self.kernel, self._device, self._cost_model, REFINE)
            self._evolution.observe([(p.scheduled, result) for p, result in self._measured])
        fresh = (
            scheduled
            for scheduled in self._evolution.propose()
            if self._is_worth_a_build(scheduled) and self._candidates.is_new(scheduled)
        )
        donor = self._parent.proposal.donor if self._parent and self._parent.proposal else None
        return [Proposal(scheduled, "refine", donor) for scheduled in islice(fresh, count)]

    def _is_worth_a_build(self, scheduled: Scheduled) -> bool:
        """Whether the innermost tile is not much worse than that of the best of its kind."""
        if self._parent is None or self._parent.proposal is None:
            return True
        best = expected_octaves(self._parent.proposal.scheduled.trace, self.kernel, self._device)
        own = expected_octaves(scheduled.trace, self.kernel, self._device)
        return own <= best + _WORSE_TILE_OCTAVES


def _is_faster(latency_us: float, other: Chosen | None) -> bool:
    return other is None or other.latency_us is None or latency_us < other.latency_us
