"""One kernel's auto-scheduling: where its trials come from and go to, how it stands."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tunebank.bank import Bank, Record
from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.measure import Measurement, Measurer
from tunebank.schedule import IllegalScheduleError, Scheduled, Trace, default_schedule
from tunebank.schedule.winograd import winograd_traces
from tunebank.search.deposit import to_record
from tunebank.search.evolution import FROM_SCRATCH, CostModel, Evolution

_ATTEMPTS = 3
"""Batches to draw before a kernel's space counts as exhausted."""

_Sample = tuple[Scheduled, Measurement]


@dataclass(frozen=True)
class TuneSettings:
    """How long to search.

    Attributes:
        source: name under which the measurements are deposited.
        trials_per_kernel: measurements of each kernel that matters; what the bank holds counts.
        most_trials: how many a kernel may get that still improves; None gives no more.
        budget_seconds: search time allowed; None sets no limit.
        winograd: whether Winograd's schedules are measured too, which are no trials.
        also_sources: by kernel key, other models that have the kernel: what is measured once is
            deposited for them too.
    """

    source: str
    trials_per_kernel: int = 64
    most_trials: int | None = None
    budget_seconds: float | None = None
    winograd: bool = False
    also_sources: Mapping[str, Collection[str]] = field(default_factory=dict)


class Store:
    """What a kernel's trials are measured with, and where they come from and go to."""

    def __init__(
        self, bank: Bank, device: Device, measurer: Measurer, settings: TuneSettings
    ) -> None:
        self._bank = bank
        self._device = device
        self._measurer = measurer
        self._settings = settings

    def earlier(self, kernel: Kernel) -> list[Record]:
        """The kernel's measurements of earlier runs on this device, in the order of their times."""
        records = self._bank.find(kernel_key=kernel.key, source=self._settings.source, status=None)
        here = [record for record in records if record.device == self._device.fingerprint]
        return sorted(here, key=lambda record: record.created_at)

    def measure(
        self, kernel: Kernel, proposals: Sequence[Scheduled], best_us: float | None, origin: str
    ) -> list[_Sample]:
        """Measures and deposits."""
        best = {kernel.key: best_us} if best_us is not None else {}
        results = self._measurer.measure(proposals, best_us=best)
        measured = list(zip(proposals, results, strict=True))
        sources = {self._settings.source, *self._settings.also_sources.get(kernel.key, ())}
        self._bank.deposit(
            to_record(scheduled, result, self._device, source=source, origin=origin)
            for source in sorted(sources)
            for scheduled, result in measured
        )
        return measured


class Task:
    """Tuning of one kernel."""

    def __init__(self, kernel: Kernel, store: Store, device: Device, cost_model: CostModel) -> None:
        self.kernel = kernel
        self.wanted = 0
        self.share = 0.0
        self.is_exhausted = False
        self._store = store
        self._cost_model = cost_model
        self._evolution = Evolution(kernel, device, cost_model, FROM_SCRATCH)
        earlier = store.earlier(kernel)
        trials = [record for record in earlier if record.origin == "tune"]
        self._default_us: float | None = None
        self._known = {record.trace: record.latency_us for record in earlier}
        self._latencies = [record.latency_us or math.inf for record in trials]
        self._unlearnt = trials

    @property
    def trials(self) -> int:
        """Trials that it has had."""
        return len(self._latencies)

    @property
    def done(self) -> bool:
        """Whether it has had its trials, or there are no more."""
        return self.is_exhausted or self.trials >= self.wanted

    @property
    def best_us(self) -> float | None:
        """Latency of the best trial."""
        best = min(self._latencies, default=math.inf)
        return best if best < math.inf else None

    @property
    def model_us(self) -> float:
        """Time that it takes in the model with the fastest schedule known."""
        known = [us for us in (self._default_us, self.best_us) if us is not None]
        return self.kernel.weight * min(known, default=0.0)

    @property
    def priority(self) -> float:
        """The time that the kernel takes in the model, by trials: heavy kernels are ahead."""
        return self.model_us / (FROM_SCRATCH.batch + self.trials)

    @property
    def recent_gain(self) -> float:
        """By which part the last quarter of the trials made it faster."""
        before = min(self._latencies[: -max(1, self.trials // 4)], default=math.inf)
        if self.best_us is None or not math.isfinite(before):
            return 0.0
        return 1.0 - self.best_us / before

    def measure_default(self) -> None:
        """Measures the default schedule, unless that is known; the bank may know an older one."""
        default = default_schedule(self._evolution.space)
        if default is None:
            return
        if default.trace.text not in self._known:
            ((_, result),) = self._store.measure(self.kernel, [default], None, "default")
            self._known[default.trace.text] = result.latency_us
        self._default_us = self._known[default.trace.text]

    def measure_winograd(self) -> None:
        """Measures the kernel by Winograd's algorithm, which MetaSchedule does not know."""
        space = self._evolution.space
        traces = winograd_traces(self.kernel, space.device)
        fresh = [trace for trace in traces if trace.text not in self._known]
        if fresh:
            proposals = [space.apply(trace) for trace in fresh]
            self._store.measure(self.kernel, proposals, self._default_us, "algorithm")

    def step(self) -> int:
        """Measures and deposits a batch; returns its size."""
        self._take_in(self._replayed())
        proposals = self._fresh()[: max(0, self.wanted - self.trials)]
        self.is_exhausted = not proposals
        if not proposals:
            return 0
        measured = self._store.measure(self.kernel, proposals, self.best_us, "tune")
        self._known.update({one.trace.text: result.latency_us for one, result in measured})
        self._latencies.extend(result.latency_us or math.inf for _, result in measured)
        self._take_in(measured)
        return len(proposals)

    def _fresh(self) -> list[Scheduled]:
        """The next proposals that were not measured yet, here or in an earlier run."""
        fresh: dict[str, Scheduled] = {}
        for _ in range(_ATTEMPTS):
            for scheduled in self._evolution.propose():
                if scheduled.trace.text not in self._known:
                    fresh.setdefault(scheduled.trace.text, scheduled)
            if fresh:
                break
        return list(fresh.values())

    def _replayed(self) -> list[_Sample]:
        """The trials of earlier runs as the search saw them, once."""
        records, self._unlearnt = self._unlearnt, []
        pairs = (_replayed(record, self._evolution) for record in records)
        return [pair for pair in pairs if pair is not None]

    def _take_in(self, measured: Iterable[_Sample]) -> None:
        pairs = list(measured)
        self._evolution.observe(pairs)
        self._cost_model.learn(self._evolution.space.context, pairs, kernel_key=self.kernel.key)


def _replayed(record: Record, evolution: Evolution) -> _Sample | None:
    """An earlier trial as the search saw it; None if it can't be replayed."""
    try:
        scheduled = evolution.space.apply(Trace.from_text(record.trace))
    except (IllegalScheduleError, ValueError):
        return None
    return scheduled, Measurement(record.status, record.samples_us, error=record.error)
