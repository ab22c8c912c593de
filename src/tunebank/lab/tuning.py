"""A bank filled over several models: what they share is tuned once.

Two passes over the models: in the first every kernel gets its trials, in the second those that
still improve get more. Stopped at any time, it goes on where it was: the bank says what is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunebank.api.common import can_run_here, running_measurer
from tunebank.bank import Bank, open_banks
from tunebank.device import Device, detect_device
from tunebank.kernel import Kernel
from tunebank.lab.zoo import Subject, find_subjects
from tunebank.measure import Measurer
from tunebank.model import Reader
from tunebank.search import TuneProgress, TuneSettings, tune

Report = Callable[[Any], None]


@dataclass(frozen=True)
class ZooSettings:
    """How long to search.

    Attributes:
        trials_per_kernel: measurements of each kernel that matters.
        most_trials: how many a kernel may get that still improves.
        budget_seconds: search time allowed in all; None sets no limit.
    """

    trials_per_kernel: int = 64
    most_trials: int = 256
    budget_seconds: float | None = None


@dataclass(frozen=True)
class Tuned:
    """What became of a model.

    Attributes:
        name: the model.
        kernels: its kernels.
        shared: how many of them another of the models has too.
        new_trials: trials measured in this run.
        seconds: search time of this run.
    """

    name: str
    kernels: int
    shared: int
    new_trials: int
    seconds: float


def tune_models(
    names: Sequence[str],
    settings: ZooSettings,
    *,
    cache: Path,
    url: str | None = None,
    target: str = "auto",
    threads: int | None = None,
    report: Report = lambda event: None,
) -> list[Tuned]:
    """Finds the models, the bank and the device, and tunes; see `tune_zoo`.

    Raises:
        UsageError: no such model, or a target that this machine can't run.
        BankError: the bank can't be written.
    """
    device = detect_device(target, threads=threads)
    can_run_here(device, is_needed=True)
    subjects = find_subjects(names, cache, report=report)
    banks = [url] if url else []
    with open_banks(banks, include_shipped=False) as bank, running_measurer(device) as measurer:
        return tune_zoo(subjects, bank, device, measurer, settings, report=report)


def tune_zoo(
    subjects: Sequence[Subject],
    bank: Bank,
    device: Device,
    measurer: Measurer,
    settings: ZooSettings,
    *,
    report: Report = lambda event: None,
) -> list[Tuned]:
    """Tunes the models, in their order, and deposits all measurements."""
    kernels = _read(subjects, device, report)
    sources = _sources(kernels)
    done = {name: Tuned(name, len(found), 0, 0, 0.0) for name, found in kernels.items()}
    start = time.monotonic()
    for most in (None, settings.most_trials):
        for name, own in kernels.items():
            left = _left(settings, start)
            if left is not None and left <= 0:
                break
            report(f"{name}: " + ("trials for all" if most is None else "more where it improves"))
            began = time.monotonic()
            wanted = TuneSettings(
                source=name,
                trials_per_kernel=settings.trials_per_kernel,
                most_trials=most,
                budget_seconds=left,
                winograd=True,
                also_sources={kernel.key: sources[kernel.key] for kernel in own},
            )
            new = tune(own, bank, device, measurer, wanted, report=_named(report, name))
            done[name] = replace(
                done[name],
                shared=sum(len(sources[kernel.key]) > 1 for kernel in own),
                new_trials=done[name].new_trials + new,
                seconds=done[name].seconds + time.monotonic() - began,
            )
    return list(done.values())


def _read(subjects: Sequence[Subject], device: Device, report: Report) -> dict[str, list[Kernel]]:
    """By model, its kernels; all are read first, since the shared ones have to be known."""
    kernels: dict[str, list[Kernel]] = {}
    with Reader() as reader:
        for subject in subjects:
            report(f"reading {subject.path}")
            kernels[subject.name] = list(subject.load(device, reader).kernels)
    return kernels


def _sources(kernels: Mapping[str, Sequence[Kernel]]) -> dict[str, Collection[str]]:
    """By kernel key, the models that have the kernel."""
    sources: dict[str, set[str]] = {}
    for name, own in kernels.items():
        for kernel in own:
            sources.setdefault(kernel.key, set()).add(name)
    return dict(sources)


def _left(settings: ZooSettings, start: float) -> float | None:
    if settings.budget_seconds is None:
        return None
    return settings.budget_seconds - (time.monotonic() - start)


def _named(report: Report, name: str) -> Callable[[TuneProgress], None]:
    def tell(progress: TuneProgress) -> None:
        kernel = progress.kernel
        report(replace(progress, kernel=replace(kernel, name=f"{name}, {kernel.name}")))

    return tell
