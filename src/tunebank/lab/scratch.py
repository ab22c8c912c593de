"""Auto-scheduling from scratch against the clock: when does it match what reuse reached?

MetaSchedule's search on our workers: the advantage of reuse must come from reuse, not from a slow
builder. Like reuse it measures the default schedules first, and turns to the kernels that take most
of the model's time first. It is followed in two ways: as it stands with the default schedules where
no trial is faster, which are no part of MetaSchedule; and by its own trials alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tunebank.bank import Bank, Record, SqlBank
from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.lab.recorded import plan_of
from tunebank.lab.rows import TimelinePoint
from tunebank.measure import Measurer
from tunebank.model import Model
from tunebank.search import Plan, TuneProgress, TuneSettings, tune

_SOURCE = "scratch"
_TRIALS = 4096  # of each kernel: the time ends the search
_MOST = 0.95
"""Share of the time that the kernels reached must take before its own trials are summed."""


@dataclass(frozen=True)
class Scratch:
    """What auto-scheduling from scratch came to.

    Attributes:
        timeline: where it was after each batch.
        match_seconds: when it reached the time that was to be matched, with the default schedules
            where no trial is faster; None if it did not.
        best: by search time, for each kernel the fastest record by then.
    """

    timeline: tuple[TimelinePoint, ...]
    match_seconds: float | None
    best: Mapping[float, Mapping[str, Record]] = field(repr=False)

    def plans(self, model: Model, device: Device) -> dict[float, Plan]:
        """The plans that stood at the checkpoints, and in the end."""
        return {
            seconds: plan_of(
                model, device, {key: [record] for key, record in best.items()}, seconds=seconds
            )
            for seconds, best in self.best.items()
        }


def auto_schedule(
    kernels: Sequence[Kernel],
    device: Device,
    measurer: Measurer,
    *,
    target_us: float,
    cap_seconds: float,
    checkpoints: Sequence[float] = (),
    report: Callable[[Any], None] = lambda event: None,
) -> Scratch:
    """Tunes kernels from scratch until its own trials are as fast as wanted, or the time is over.

    Args:
        kernels: a model's kernels.
        device: what to tune for.
        measurer: measures.
        target_us: the sum over kernels of latency times weight that is to be matched.
        cap_seconds: search time allowed.
        checkpoints: search times at which the best records are kept; it goes on until the last.
        report: told the progress.
    """
    bank = SqlBank("sqlite://")
    watch = _Watch(kernels, bank, target_us, sorted(checkpoints), report)
    settings = TuneSettings(
        source=_SOURCE, trials_per_kernel=_TRIALS, budget_seconds=max(cap_seconds, *checkpoints, 0)
    )
    with suppress(_MatchedError):
        tune(kernels, bank, device, measurer, settings, report=watch)
    return watch.found()


class _MatchedError(Exception):
    """It is as fast as wanted, and all checkpoints are passed."""


class _Watch:
    """Follows the search; ends it when it has matched."""

    def __init__(
        self,
        kernels: Sequence[Kernel],
        bank: Bank,
        target_us: float,
        checkpoints: Sequence[float],
        report: Callable[[Any], None],
    ) -> None:
        self._kernels = kernels
        self._bank = bank
        self._target_us = target_us
        self._waiting = list(checkpoints)
        self._report = report
        self._timeline: list[TimelinePoint] = []
        self._kept: dict[float, Mapping[str, Record]] = {}
        self._standing: dict[str, Record] = {}
        self._alone_us: dict[str, float] = {}
        self._match_seconds: float | None = None

    def __call__(self, progress: TuneProgress) -> None:
        """Takes in a batch."""
        self._report(progress)
        while self._waiting and progress.seconds > self._waiting[0]:
            self._kept[self._waiting.pop(0)] = self._standing  # of the batch before
        self._standing = self._best()
        if progress.best_us is not None:
            self._alone_us[progress.kernel.key] = progress.best_us
        total, alone = self._total(), self._total_alone()
        self._timeline.append(TimelinePoint(progress.seconds, progress.new_trials, total, alone))
        if self._match_seconds is None and total <= self._target_us:
            self._match_seconds = progress.seconds
        if alone is not None and alone <= self._target_us and not self._waiting:
            raise _MatchedError

    def found(self) -> Scratch:
        """What it came to."""
        seconds = self._timeline[-1].seconds if self._timeline else 0.0
        kept = {**self._kept, **dict.fromkeys(self._waiting, self._standing)}
        if not self._waiting:
            kept[seconds] = self._standing
        return Scratch(tuple(self._timeline), self._match_seconds, dict(sorted(kept.items())))

    def _total(self) -> float:
        return sum(k.weight * self._latency_us(k) for k in self._kernels)

    def _total_alone(self) -> float | None:
        reached = [kernel for kernel in self._kernels if kernel.key in self._alone_us]
        if sum(k.weight * self._latency_us(k) for k in reached) < _MOST * self._total():
            return None
        return sum(k.weight * self._alone_us.get(k.key, self._latency_us(k)) for k in self._kernels)

    def _latency_us(self, kernel: Kernel) -> float:
        record = self._standing.get(kernel.key)
        return (record.latency_us or 0.0) if record else 0.0

    def _best(self) -> dict[str, Record]:
        """By kernel, the fastest record; a kernel all of whose trials failed has none."""
        found = {k.key: self._bank.find(kernel_key=k.key, limit=1) for k in self._kernels}
        return {key: records[0] for key, records in found.items() if records}
