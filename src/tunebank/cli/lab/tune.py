"""`tunebank lab tune`: a bank filled over the models of the experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tunebank.cli import options
from tunebank.cli.lab.common import cache_option, models_option
from tunebank.cli.output import json_option, print_json


@click.command()
@models_option("the thirteen of the experiments")
@options.bank_option
@click.option(
    "--trials-per-kernel",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Measurements of each kernel that matters; those in the bank count.",
)
@click.option(
    "--most-trials",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    help="How many a kernel may get that still improves.",
)
@click.option(
    "--time-budget", type=options.Duration(), metavar="DURATION", help="Stop after it, such as 2h."
)
@cache_option
@options.device_options
@json_option
def tune(
    models: tuple[str, ...],
    url: str | None,
    trials_per_kernel: int,
    most_trials: int,
    time_budget: float | None,
    cache: Path,
    target: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Auto-schedule several models into one bank; kernels that they share are tuned once.

    It takes hours. Stopped (Ctrl-C), it goes on from there the next time.

    A model is a network by its name, a file, or a function `package.module:function` that makes
    one.

    \b
    Example:
      tunebank lab tune --bank zoo.db --models resnet18,bert_128,mine.onnx --time-budget 2h
    """
    from dataclasses import asdict

    from tunebank.cli.progress import Progress
    from tunebank.lab.tuning import ZooSettings, tune_models

    wanted = ZooSettings(trials_per_kernel, most_trials, time_budget)
    with Progress() as progress:
        tuned = tune_models(
            models, wanted, cache=cache, url=url, target=target, threads=threads, report=progress
        )
    if as_json:
        print_json({"models": [asdict(one) for one in tuned]})
        return
    _print(tuned)


def _print(tuned: Any) -> None:
    from tunebank.report import print_table

    columns = ("model", "kernels", "shared", "new trials", "seconds")
    rows = [
        (t.name, str(t.kernels), str(t.shared), str(t.new_trials), f"{t.seconds:.0f}")
        for t in tuned
    ]
    print_table(columns, rows, numbers=columns[1:])
