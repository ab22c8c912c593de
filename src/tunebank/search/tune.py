"""Auto-scheduling from scratch: MetaSchedule's search on our workers, into a bank.

It fills a bank, and is the baseline that reuse is compared with. Resumable: the bank says how
many trials each kernel has had, and the search goes on from what they measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from tunebank.bank import Bank, Record
from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.measure import Measurement, Measurer
from tunebank.model import Model
from tunebank.schedule import IllegalScheduleError, Scheduled, Trace
from tunebank.search.deposit import to_record
from tunebank.search.evolution import FROM_SCRATCH, CostModel, Evolution

_ATTEMPTS = 3
"""Batches to draw before a kernel's space counts as exhausted."""


@dataclass(frozen=True)
class TuneSettings:
    """How long to search.

    Attributes:
        source: name under which the measurements are deposited.
        trials_per_kernel: measurements per kernel; what the bank holds already counts.
        budget_seconds: search time allowed; None sets no limit.
    """

    source: str
    trials_per_kernel: int = 64
    budget_seconds: float | None = None


@dataclass(frozen=True)
class TuneProgress:
    """How far tuning is; shown to the user.

    Attributes:
        kernel: the kernel just measured.
        trials: trials done, those of earlier runs included.
        total_trials: trials wanted.
        new_trials: trials done in this run.
        seconds: time of this run.
        best_us: best latency of the kernel.
    """

    kernel: Kernel
    trials: int
    total_trials: int
    new_trials: int
    seconds: float
    best_us: float | None


def tune(
    model: Model,
    bank: Bank,
    device: Device,
    measurer: Measurer,
    settings: TuneSettings,
    *,
    report: Callable[[TuneProgress], None] = lambda progress: None,
) -> int:
    """Tunes every kernel of a model and deposits all measurements.

    Returns:
        the number of new measurements.
    """
    start = time.monotonic()
    cost_model = CostModel(device)
    tasks = [_Task(k, bank, device, cost_model, settings) for k in model.kernels]
    total = sum(task.wanted for task in tasks)
    tasks = [task for task in tasks if not task.done]
    new_trials = 0
    while tasks:
        elapsed = time.monotonic() - start
        if settings.budget_seconds is not None and elapsed > settings.budget_seconds:
            break
        task = max(tasks, key=lambda task: task.priority)
        measured = task.step(measurer, bank, device, settings.source)
        new_trials += measured
        if task.done or not measured:
            tasks.remove(task)
            total -= task.wanted - task.trials if not task.done else 0
        done = total - sum(t.wanted - t.trials for t in tasks)
        seconds = time.monotonic() - start
        report(TuneProgress(task.kernel, done, total, new_trials, seconds, task.best_us))
    return new_trials


class _Task:
    """Tuning of one kernel."""

    def __init__(
        self,
        kernel: Kernel,
        bank: Bank,
        device: Device,
        cost_model: CostModel,
        settings: TuneSettings,
    ) -> None:
        self.kernel = kernel
        self.best_us: float | None = None
        self._cost_model = cost_model
        self._evolution = Evolution(kernel, device, cost_model, FROM_SCRATCH)
        earlier = [
            record
            for record in bank.find(kernel_key=kernel.key, source=settings.source, status=None)
            if record.device == device.fingerprint
        ]
        self.trials = len(earlier)
        self._known = {record.trace for record in earlier}
        # Without a reduction the space has a handful of programs.
        self.wanted = settings.trials_per_kernel if kernel.anchor is not None else 4
        if not self.done:
            self._take_in(_replayed(record, self._evolution) for record in earlier)

    @property
    def done(self) -> bool:
        """Whether the kernel has had its trials."""
        return self.trials >= self.wanted

    @property
    def priority(self) -> float:
        """Kernels take turns; among those with as many trials the heavier goes first."""
        return -self.trials / self.wanted + min(self.kernel.flops * self.kernel.weight, 1e15) / 1e18

    def step(self, measurer: Measurer, bank: Bank, device: Device, source: str) -> int:
        """Measures and deposits a batch; returns its size."""
        proposals = self._fresh()[: max(0, self.wanted - self.trials)]
        self._known.update(one.trace.text for one in proposals)
        best = {self.kernel.key: self.best_us} if self.best_us is not None else {}
        results = measurer.measure(proposals, best_us=best)
        bank.deposit(
            [
                to_record(scheduled, result, device, source=source, origin="tune")
                for scheduled, result in zip(proposals, results, strict=True)
            ]
        )
        self.trials += len(proposals)
        self._take_in(zip(proposals, results, strict=True))
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

    def _take_in(self, measured: object) -> None:
        pairs = [pair for pair in measured if pair is not None]  # type: ignore[attr-defined]
        for _, result in pairs:
            if result.latency_us is not None:
                self.best_us = min(self.best_us or result.latency_us, result.latency_us)
        self._evolution.observe(pairs)
        self._cost_model.learn(self._evolution.space.context, pairs, kernel_key=self.kernel.key)


def _replayed(record: Record, evolution: Evolution) -> tuple[Scheduled, Measurement] | None:
    """An earlier trial as the search saw it; None if it can't be replayed."""
    try:
        scheduled = evolution.space.apply(Trace.from_text(record.trace))
    except (IllegalScheduleError, ValueError):
        return None
    return scheduled, Measurement(record.status, record.samples_us, error=record.error)
