"""Auto-scheduling from scratch: MetaSchedule's search on our workers, into a bank.

It fills a bank, and is the baseline that reuse is compared with.

    first        every kernel's default schedule is measured: it tells what each kernel's share of
                 the model's time is; and, if wanted, Winograd's schedules
    then         kernels get batches of trials, the heavier the earlier, until each has had its
                 number: all of them if its share matters, fewer if it does not
    at the end   the kernels that still improve get more, up to a limit

Resumable: the bank says how many trials each kernel has had, and the search goes on from what
they measured. The default schedule is no trial, and the search is not told of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tunebank.bank import Bank
from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.measure import Measurer
from tunebank.search.evolution import CostModel
from tunebank.search.tune_task import Store, Task, TuneSettings

_MATTERS_SHARE = 0.004
"""Share of a model's time from which a kernel gets all its trials."""
_MINOR_PART = 4
"""Kernels below that share get one of so many trials."""
_WITHOUT_REDUCTION = 4
"""Trials of a kernel without a reduction: its space has a handful of programs."""
_STILL_IMPROVES = 0.01
"""A kernel gets more trials if its last quarter of them made it faster by this part."""


@dataclass(frozen=True)
class TuneProgress:
    """How far tuning is; shown to the user.

    Attributes:
        kernel: the kernel just measured.
        trials: trials done, those of earlier runs included.
        total_trials: trials wanted.
        new_trials: trials done in this run.
        seconds: time of this run.
        best_us: best latency that a trial of the kernel had.
    """

    kernel: Kernel
    trials: int
    total_trials: int
    new_trials: int
    seconds: float
    best_us: float | None


def tune(
    kernels: Sequence[Kernel],
    bank: Bank,
    device: Device,
    measurer: Measurer,
    settings: TuneSettings,
    *,
    report: Callable[[TuneProgress], None] = lambda progress: None,
) -> int:
    """Tunes the kernels of a model and deposits all measurements.

    Returns:
        the number of new trials; default schedules that were measured are not counted.
    """
    return _Tuning(kernels, bank, device, measurer, settings, report).run()


class _Tuning:
    """One run."""

    def __init__(
        self,
        kernels: Sequence[Kernel],
        bank: Bank,
        device: Device,
        measurer: Measurer,
        settings: TuneSettings,
        report: Callable[[TuneProgress], None],
    ) -> None:
        cost_model = CostModel(device)
        store = Store(bank, device, measurer, settings)
        self._tasks = [Task(kernel, store, device, cost_model) for kernel in kernels]
        self._measurer = measurer
        self._settings = settings
        self._report = report
        self._start = time.monotonic()
        self._new_trials = 0

    def run(self) -> int:
        """Tunes until all have had their trials, or the time is over."""
        for task in self._tasks:
            if self._has_time:
                task.measure_default()
                if self._settings.winograd:
                    task.measure_winograd()
        self._share_out()
        while self._has_time:
            following = self._next()
            if following is None:
                break
            self._new_trials += following.step()
            self._tell(following)
        return self._new_trials

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._start

    @property
    def _has_time(self) -> bool:
        budget = self._settings.budget_seconds
        return budget is None or self._seconds <= budget

    def _share_out(self) -> None:
        """How many trials each kernel is to have."""
        trials = self._settings.trials_per_kernel
        total_us = sum(task.model_us for task in self._tasks)
        for task in self._tasks:
            task.share = task.model_us / total_us if total_us else 1.0
            task.wanted = trials if task.share >= _MATTERS_SHARE else max(1, trials // _MINOR_PART)
            if task.kernel.anchor is None:
                task.wanted = min(task.wanted, _WITHOUT_REDUCTION)

    def _next(self) -> Task | None:
        """The kernel whose turn it is; when all are done, one that may get more; else None."""
        waiting = [task for task in self._tasks if not task.done]
        if waiting:
            return max(waiting, key=lambda task: task.priority)
        improving = [task for task in self._tasks if self._may_go_on(task)]
        if not improving:
            return None
        task = max(improving, key=lambda task: task.model_us * task.recent_gain)
        most = self._settings.most_trials or 0
        task.wanted = min(most, task.trials + max(1, self._settings.trials_per_kernel // 2))
        return task

    def _may_go_on(self, task: Task) -> bool:
        most = self._settings.most_trials or 0
        matters = task.share >= _MATTERS_SHARE and not task.is_exhausted
        return matters and task.trials < most and task.recent_gain >= _STILL_IMPROVES

    def _tell(self, task: Task) -> None:
        total = sum(t.trials if t.is_exhausted else max(t.wanted, t.trials) for t in self._tasks)
        done = sum(t.trials for t in self._tasks)
        self._report(
            TuneProgress(task.kernel, done, total, self._new_trials, self._seconds, task.best_us)
        )
