"""Reuse measured against full auto-scheduling, ONNX Runtime and PyTorch, leave-one-model-out.

For each model, everything of its own architecture is withheld from the bank. Then, in each repeat,

    searches     with the records of one donor model, and with those of all: one search each, of
                 which the plan is kept as it stood when each smaller budget was used up
    contestants  those plans, the default schedules, the best of the model's own trials (full
                 auto-scheduling), ONNX Runtime, PyTorch: timed in one interleaved run

and, once, reuse by schedules alone, auto-scheduling from scratch on the same workers
until it reaches what reuse reached or the cap, and, if wanted, MetaSchedule as it comes. Each
repeat is a line in a file of results; what has a line is not measured again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tunebank._version import __version__
from tunebank.api.common import can_run_here, running_measurer
from tunebank.bank import open_banks
from tunebank.device import detect_device
from tunebank.lab.experiments import EvaluationSettings, Experiments, Report
from tunebank.lab.rows import REUSE, SCRATCH, STOCK, Row, append_row, latest_rows
from tunebank.lab.zoo import find_subjects
from tunebank.model import Reader


def evaluate_models(
    names: Sequence[str],
    settings: EvaluationSettings,
    *,
    cache: Path,
    url: str,
    target: str = "auto",
    threads: int | None = None,
    report: Report = lambda event: None,
) -> list[Row]:
    """Measures what has no row yet; returns all rows of the models.

    Args:
        names: the models; none takes the thirteen.
        settings: what is measured.
        cache: folder of the model files.
        url: the bank with the donors, and with the models' own trials.
        target: see `tunebank.device.detect_device`.
        threads: likewise.
        report: called with lines of text, and with the events of searches and comparisons.

    Raises:
        UsageError: no such model, or a target that this machine can't run.
        BankError: the bank can't be read.
    """
    device = detect_device(target, threads=threads)
    can_run_here(device, is_needed=True)
    subjects = find_subjects(names, cache, report=report)
    done = set() if settings.again else {row.key for row in latest_rows(settings.results)}
    with open_banks([url], include_shipped=False, create=False) as bank, Reader() as reader:
        for subject in subjects:
            wanted = [one for one in _wanted(subject.name, settings) if one not in done]
            if not wanted:
                continue
            report(f"{subject.name}: reading")
            model = subject.load(device, reader)
            with running_measurer(device) as measurer:
                measurer.wait_until_ready()
                experiments = Experiments(subject, model, bank, device, measurer, settings, report)
                for experiment, _, repeat, _ in wanted:
                    report(f"{subject.name}: {experiment}, repeat {repeat + 1}")
                    append_row(settings.results, experiments.row(experiment, repeat))
    chosen = {subject.name for subject in subjects}
    return [row for row in latest_rows(settings.results) if row.model in chosen]


def _wanted(model: str, settings: EvaluationSettings) -> Iterator[tuple[str, str, int, str]]:
    for repeat in range(settings.repeats):
        yield REUSE, model, repeat, __version__
        searches = max(settings.budgets_seconds) > 0  # else there is nothing to match
        if repeat == 0 and settings.cap_seconds > 0 and searches:
            yield SCRATCH, model, 0, __version__
        if repeat == 0 and settings.stock_seconds > 0:
            yield STOCK, model, 0, __version__
