"""The reuse loop: a model and a bank to a plan, within a time budget.

    round 0     every kernel: what it would get unmeasured, its default schedule, its best-ranked
                donors' candidates
    after it    the kernel with the largest expected gain for the whole model gets the next
                batch, until the budget is used or nothing promises more
    in between  kernels that share weights, in a model of several sets of shapes, are measured
                under each other's packings; see `accord.py`

The expected gain of a kernel is its headroom, the time that it would save at the best rates
of computing and of moving data seen in this model, times its weight, halved for each round that
brought nothing. What was measured is deposited batch by batch, and the plan so far is always
ready.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from tunebank.bank import Bank
from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.measure import Measurement, Measurer
from tunebank.model import Join, Model, joined
from tunebank.search.accord import Accord
from tunebank.search.candidates import Proposal
from tunebank.search.deposit import to_record
from tunebank.search.evolution import CostModel
from tunebank.search.joining import worthwhile_joins
from tunebank.search.kernel_search import KernelSearch
from tunebank.search.plan import Plan
from tunebank.search.settings import Progress, ReuseSettings
from tunebank.search.sharing import weight_groups
from tunebank.transfer import Donor, Matcher, pretrained

FIRST_DONORS = 2
BATCH = 12
_BATCH_BYTES = 128 * 1024**2
_OPERATIONS_PER_BYTE = 8.0
"""About as many as a CPU computes while a byte comes from memory."""
_AGREEMENT_SHARE = 0.25
"""Of the budget, at most, what is kept for kernels that are to agree on a packing."""
_NEGLIGIBLE_SHARE = 0.002
"""Search stops when no kernel promises this share of the model's time."""


def reuse(
    model: Model,
    bank: Bank,
    device: Device,
    measurer: Measurer | None,
    settings: ReuseSettings,
    *,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Plan:
    """Finds a schedule for each kernel of a model from the schedules in a bank.

    Interrupting it (KeyboardInterrupt) ends the search; the plan so far is returned.

    Args:
        model: the model.
        bank: donors come from it, measurements go to it.
        device: the device to compile for.
        measurer: measures candidates; None measures nothing.
        settings: budget and limits.
        report: called after each batch.
    """
    return _Reuse(model, bank, device, measurer, settings, report).run()


class _Reuse:
    """One run of the loop."""

    def __init__(
        self,
        model: Model,
        bank: Bank,
        device: Device,
        measurer: Measurer | None,
        settings: ReuseSettings,
        report: Callable[[Progress], None],
    ) -> None:
        self._joins: dict[Join, str] = {}
        if settings.joins:
            self._joins = worthwhile_joins(model, device, winograd=settings.winograd)
        self._model = joined(model, self._joins)
        self._bank = bank
        self._device = device
        self._measurer = measurer
        self._settings = settings
        self._report = report
        self._cost_model = CostModel(device)
        self._searches: dict[str, KernelSearch] = {}
        self._accords: list[Accord] = []
        self._measured = 0
        self._spent: dict[str, float] = {}
        self._spent_per_candidate = 0.2
        self._proposing = 0.0
        self._start = time.monotonic()

    def run(self) -> Plan:
        interrupted = self._match_all()
        self._accords = [
            Accord(group, self._searches, self._device, self._model.name)
            for group in weight_groups(self._model)
        ]
        try:
            may_measure = self._measurer is not None and self._settings.budget_seconds > 0
            if may_measure and not interrupted:
                self._first_round()
                self._rounds()
        except KeyboardInterrupt:
            interrupted = True
        return self._plan(interrupted=interrupted)

    def _plan(self, *, interrupted: bool = False) -> Plan:
        """What stands now."""
        chosen = {key: search.chosen() for key, search in self._searches.items()}
        for accord in self._accords:
            chosen.update(accord.settle(chosen))
        return Plan(
            choices={key: search.choice(chosen[key]) for key, search in self._searches.items()},
            joins=self._joins,
            search_seconds=time.monotonic() - self._start,
            measured=self._measured,
            interrupted=interrupted,
        )

    def _match_all(self) -> bool:
        """Finds the donors of all kernels; if interrupted the rest go without, and it says so."""
        interrupted = False
        excluded = self._settings.exclude_sources
        matcher = Matcher(self._bank, exclude_sources=excluded)
        trained = pretrained(self._bank, exclude_sources=excluded)
        for kernel in self._model.kernels:
            donors: list[Donor] = []
            is_joint = kernel.key in self._joins.values()  # donors schedule one of its parts
            if not interrupted and not is_joint:
                try:
                    donors = matcher.donors(kernel)
                except KeyboardInterrupt:
                    interrupted = True
            self._searches[kernel.key] = KernelSearch(
                kernel,
                donors,
                self._device,
                self._cost_model,
                ruled_out=matcher.known_wrong(kernel, self._device),
                winograd=self._settings.winograd,
                pretrained=trained,
            )
        return interrupted

    @property
    def _left(self) -> float:
        return self._settings.budget_seconds - (time.monotonic() - self._start)

    def _first_round(self) -> None:
        """Kernels in order of their work, so that a short budget covers what matters."""
        pending: list[tuple[KernelSearch, Proposal]] = []
        for search in sorted(self._searches.values(), key=lambda s: -_work(s.kernel)):
            pending.extend((search, proposal) for proposal in search.first(FIRST_DONORS))
        self._measure_all(pending)

    def _measure_all(
        self, pending: list[tuple[KernelSearch, Proposal]], *, is_contest: bool = True
    ) -> None:
        """Measures in batches as long as there is time; see `_measure`."""
        while pending and (left := self._left - is_contest * self._kept()) > 0:
            size = min(_most_at_once(search.kernel) for search, _ in pending[:BATCH])
            size = max(1, min(size, int(left / self._spent_per_candidate)))
            batch, pending = pending[:size], pending[size:]
            self._measure(batch, is_contest=is_contest)

    def _rounds(self) -> None:
        self._agree()
        while (search := self._most_promising()) is not None:
            size = min(self._affordable(search), _most_at_once(search.kernel))
            if size < 1:
                return
            start = time.monotonic()
            proposals = search.propose(size)
            self._proposing = max(time.monotonic() - start, 0.9 * self._proposing)
            if not proposals:
                search.stale_rounds += 4  # its space seems exhausted: others first
                continue
            self._measure([(search, proposal) for proposal in proposals])
            self._agree()

    def _agree(self) -> None:
        """Measures what siblings need to know to agree on a packing."""
        while self._left > 0:
            wanted = [pair for accord in self._accords for pair in accord.wanted()]
            if not wanted:
                return
            self._measure_all(wanted, is_contest=False)

    def _kept(self, search: KernelSearch | None = None) -> float:
        """Seconds kept for agreeing.

        Args:
            search: of the kernel that is to be measured next; its siblings may then have to be.
        """
        key = search.kernel.key if search is not None else None
        needed = sum(
            count * self._spent.get(sibling, self._spent_per_candidate)
            for accord in self._accords
            for sibling, count in accord.missing(after=key).items()
        )
        if needed:  # and the next proposals come first
            needed += self._proposing
        return min(needed, _AGREEMENT_SHARE * self._settings.budget_seconds)

    def _affordable(self, search: KernelSearch) -> int:
        """How many candidates of the kernel the time left is enough for."""
        seconds = self._spent.get(search.kernel.key, self._spent_per_candidate)
        return int((self._left - self._kept(search)) / seconds)

    def _most_promising(self) -> KernelSearch | None:
        gains = {key: self._expected_gain_us(search) for key, search in self._searches.items()}
        key = max(gains, key=lambda key: gains[key], default=None)
        if key is None or gains[key] <= _NEGLIGIBLE_SHARE * (self._kernels_us() or 0.0):
            return None
        return self._searches[key]

    def _expected_gain_us(self, search: KernelSearch) -> float:
        best = search.best_us
        if best is None or not (search.has_candidates or search.can_refine):
            return 0.0
        headroom = max(best - self._ideal_us(search.kernel), 0.05 * best)
        return float(search.kernel.weight * headroom * 0.5**search.stale_rounds)

    def _ideal_us(self, kernel: Kernel) -> float:
        """What a kernel would take at the best rates of the model: a roof line of what was seen."""
        measured = [s for s in self._searches.values() if s.best_us]
        operations = max((s.kernel.flops / (s.best_us or 1.0) for s in measured), default=0.0)
        alike = [s for s in measured if 2 * s.kernel.argument_bytes >= kernel.argument_bytes]
        traffic = max((s.kernel.argument_bytes / (s.best_us or 1.0) for s in alike), default=0.0)
        computing = kernel.flops / operations if operations else 0.0
        moving = kernel.argument_bytes / traffic if traffic else 0.0
        return max(computing, moving)

    def _kernels_us(self) -> float | None:
        total = 0.0
        for search in self._searches.values():
            if search.best_us is None:
                return None
            total += search.kernel.weight * search.best_us
        return total

    def _measure(
        self, batch: Sequence[tuple[KernelSearch, Proposal]], *, is_contest: bool = True
    ) -> None:
        """Measures a batch and takes in what came of it.

        Args:
            batch: what to measure, each with its kernel's search.
            is_contest: whether only what beats the best so far needs its numbers checked; if
                not, each kernel is to be in the batch once.
        """
        assert self._measurer is not None
        start = time.monotonic()
        best_us = {key: s.best_us for key, s in self._searches.items() if s.best_us is not None}
        best_us = best_us if is_contest else {}
        results = self._measurer.measure([p.scheduled for _, p in batch], best_us=best_us)
        self._measured += len(results)
        by_search: dict[str, list[tuple[Proposal, Measurement]]] = {}
        for (search, proposal), result in zip(batch, results, strict=True):
            by_search.setdefault(search.kernel.key, []).append((proposal, result))
        for key, measured in by_search.items():
            self._searches[key].observe(measured)
            self._searches[key].learn(measured)
            self._deposit(measured)
        for accord in self._accords:
            accord.offer_best()
        spent = (time.monotonic() - start) / len(batch)
        self._spent.update({search.kernel.key: spent for search, _ in batch})
        self._spent_per_candidate = 0.7 * self._spent_per_candidate + 0.3 * spent
        self._report(
            Progress(
                seconds=time.monotonic() - self._start,
                budget_seconds=self._settings.budget_seconds,
                measured=self._measured,
                kernels_us=self._kernels_us(),
                plan=self._plan,
            )
        )

    def _deposit(self, measured: Sequence[tuple[Proposal, Measurement]]) -> None:
        if not self._settings.deposit:
            return
        self._bank.deposit(
            [
                to_record(
                    proposal.scheduled,
                    result,
                    self._device,
                    source=self._model.name,
                    origin=proposal.origin,
                    donor_id=proposal.donor.record.id if proposal.donor else None,
                )
                for proposal, result in measured
            ]
        )


def _work(kernel: Kernel) -> float:
    """How much there is to compute or to move in a run, in operations."""
    return kernel.weight * max(kernel.flops, _OPERATIONS_PER_BYTE * kernel.argument_bytes)


def _most_at_once(kernel: Kernel) -> int:
    """How many candidates of the kernel to measure before looking at the clock again.

    Fewer of one with large arguments: drawing and packing 400 MB for a check takes seconds.
    """
    return max(1, min(BATCH, _BATCH_BYTES // max(1, kernel.argument_bytes)))
