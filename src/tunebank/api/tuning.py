"""A model auto-scheduled from scratch, into a bank."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from tunebank.api.common import (
    PathLike,
    Report,
    can_run_here,
    learn_from,
    load,
    nothing_measured,
    running_measurer,
    silent,
)
from tunebank.bank import open_banks
from tunebank.device import detect_device
from tunebank.model import DimValues, InputShapes
from tunebank.results import TuneResult
from tunebank.search import TuneProgress, TuneSettings, tune


def tune_model(
    path: PathLike,
    *,
    banks: Sequence[str] = (),
    trials_per_kernel: int = 64,
    time_budget_seconds: float | None = None,
    source: str | None = None,
    target: str = "auto",
    threads: int | None = None,
    input_shapes: InputShapes | None = None,
    dims: DimValues | None = None,
    report: Report = silent,
) -> TuneResult:
    """Auto-schedules a model's kernels from scratch, to fill a bank.

    Interrupted, it goes on where it stopped when it is called again.

    Args:
        path: an ONNX file, or a PyTorch program.
        banks: URLs or paths; the first is written. None given: the default bank.
        trials_per_kernel: measurements per kernel; those in the bank count.
        time_budget_seconds: search time; None sets no limit.
        source: name to deposit under; None takes the model's.
        target: `auto`, a TVM tag, or JSON.
        threads: threads to tune for; None takes the physical cores.
        input_shapes: by name of an input that the file leaves dynamic a shape, or several.
        dims: by name of a symbolic dimension its values.
        report: called with lines of text and `TuneProgress`.

    Raises:
        UsageError: bad input.
        MeasurementError: measurements were made, and all failed.
    """
    start = time.monotonic()
    device = detect_device(target, threads=threads)
    can_run_here(device, is_needed=True)
    is_any_measured = False

    def watch(progress: TuneProgress) -> None:
        nonlocal is_any_measured
        is_any_measured = is_any_measured or progress.best_us is not None
        report(progress)

    with running_measurer(device) as measurer:
        model = load(Path(path), device, (input_shapes, dims), report)
        measurer.wait_until_ready()
        prepared = time.monotonic()
        name = source or model.name
        settings = TuneSettings(
            source=name,
            trials_per_kernel=trials_per_kernel,
            budget_seconds=time_budget_seconds,
            winograd=True,
        )
        with open_banks(banks, vector_lanes=device.vector_lanes) as bank:
            measured = tune(model.kernels, bank, device, measurer, settings, report=watch)
            learn_from(bank, device, report)
    if measured and not is_any_measured:
        raise nothing_measured(measured)
    seconds = time.monotonic() - prepared
    return TuneResult(model.name, name, measured, prepared - start, seconds)
