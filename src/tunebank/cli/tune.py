"""`tunebank tune`: auto-schedules a model, to fill a bank."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tunebank.cli import options
from tunebank.cli.output import json_option, print_data

_DEFAULT_TRIALS = 64


@click.command()
@options.model_argument
@click.option(
    "--trials-per-kernel",
    type=click.IntRange(min=1),
    help=f"Measurements per kernel; those in the bank count.  [default: {_DEFAULT_TRIALS}]",
)
@click.option(
    "--time-budget", type=options.Duration(), metavar="DURATION", help="Stop after it, such as 2h."
)
@click.option("--source", metavar="NAME", help="Name to deposit under.  [default: the file's stem]")
@options.banks_option
@options.device_options
@options.input_shape_option
@json_option
def tune(
    model: Path,
    trials_per_kernel: int | None,
    time_budget: float | None,
    source: str | None,
    banks: tuple[str, ...],
    as_json: bool,
    **device: Any,
) -> None:
    """Auto-schedule the kernels of MODEL and deposit every measurement.

    It takes minutes to hours. Stopped (Ctrl-C), it goes on from there the next time.

    \b
    Example:
      tunebank tune model.onnx --trials-per-kernel 64 --source my-model
    """
    from tunebank import api
    from tunebank.cli.progress import Progress

    with Progress() as progress:
        result = api.tune_model(
            model,
            banks=banks,
            trials_per_kernel=trials_per_kernel or _DEFAULT_TRIALS,
            time_budget_seconds=time_budget,
            source=source,
            report=progress,
            **device,
        )
    data = result.to_json()
    text = f"{data['measured']} schedules measured in {data['search_seconds']:.0f} s"
    print_data(data, text, as_json)
