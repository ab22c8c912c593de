"""What several of the acts share: the model's file, the measuring processes, checks."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunebank.bank import Bank
from tunebank.build import target_features
from tunebank.device import Device, missing_features
from tunebank.errors import BankError, MeasurementError, TargetError
from tunebank.measure import LocalMeasurer
from tunebank.model import DimValues, InputShapes, Model, Reader, load_model

PathLike = str | os.PathLike[str]
Report = Callable[[Any], None]

_PROGRAM_NAME = "program"
"""What a PyTorch program without a file is called."""


def silent(event: Any) -> None:
    """Reports to nobody."""


@contextmanager
def running_measurer(device: Device) -> Iterator[LocalMeasurer]:
    """Workers that start while the caller goes on, and end with the block."""
    measurer = LocalMeasurer(device)
    try:
        measurer.start()
        yield measurer
    finally:
        measurer.close()


def load(
    path: Path,
    device: Device,
    shapes: tuple[InputShapes | None, DimValues | None],
    report: Report,
    reader: Reader | None = None,
) -> Model:
    """The model in a file; see `tunebank.model.load_model`."""
    report(f"reading {path}")
    given, dims = shapes
    model = load_model(path, device, input_shapes=given, dims=dims, reader=reader, report=report)
    for warning in model.warnings:
        report(f"{path}: {warning}")
    return model


@contextmanager
def model_file(model: Any) -> Iterator[Path]:
    """The model's file; a program that lives in memory is written to one for the block."""
    if isinstance(model, (str, os.PathLike)):
        yield Path(model)
        return
    from tunebank.model.torch_file import save_program

    with tempfile.TemporaryDirectory(prefix="tunebank-") as folder:
        path = Path(folder) / f"{_PROGRAM_NAME}.pt2"
        save_program(model, path)
        yield path


def can_run_here(device: Device, *, is_needed: bool) -> bool:
    """Whether this machine can run code for the device.

    Raises:
        TargetError: it can't, and has to.
    """
    lacking = missing_features(target_features(device))
    if lacking and is_needed:
        raise TargetError(
            f"the target needs {', '.join(lacking)}, which this machine lacks: nothing can be "
            "measured or verified; compile there, or with --time-budget 0 --no-verify"
        )
    return not lacking


def learn_from(bank: Bank, device: Device, report: Report) -> None:
    """Lets the bank's cost model learn, if there is much that it does not know.

    The work is done by then: interrupted, or if the bank can't be written, it stays as it was.
    """
    from tunebank.transfer.pretraining import is_behind, refresh

    try:
        if is_behind(bank, device):
            report("learning from what was measured here")
            refresh(bank, device)
    except (BankError, KeyboardInterrupt) as error:
        report(f"the bank's cost model stays as it was: {error or 'interrupted'}")


def nothing_measured(tried: int) -> MeasurementError:
    """The error to raise when measurements were made, and all failed."""
    return MeasurementError(
        f"nothing could be measured: {tried} candidates failed to build or run; see "
        "`tunebank bank ls --status crashed`, and `tunebank doctor`"
    )
