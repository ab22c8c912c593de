"""`tunebank lab evaluate`: reuse against full auto-scheduling, leave-one-model-out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tunebank.cli import options
from tunebank.cli.lab.common import cache_option, models_option
from tunebank.cli.output import json_option, note, print_json


class Budgets(click.ParamType[tuple[float, ...]]):
    """`0,10,30,60`: search times, each a duration."""

    name = "durations"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """See `click.ParamType`."""
        if isinstance(value, tuple):
            return value
        duration = options.Duration()
        return tuple(duration.convert(part, param, ctx) for part in str(value).split(","))


@click.command()
@models_option("the thirteen of the experiments")
@click.option(
    "--bank",
    "url",
    required=True,
    metavar="URL",
    help="The donors, and each model's own trials, as `lab tune` makes it; it is not changed.",
)
@click.option(
    "--results",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("results/evaluation.jsonl"),
    show_default=True,
    help="File of the results, a line of JSON each; what is there is not measured again.",
)
@click.option(
    "--budgets",
    "budgets_seconds",
    type=Budgets(),
    default="0s,10s,30s,60s",
    show_default=True,
    metavar="DURATION,...",
    help="Search times of reuse.",
)
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True)
@click.option(
    "--cap",
    "cap_seconds",
    type=options.Duration(),
    default="600s",
    show_default=True,
    metavar="DURATION",
    help="How long auto-scheduling from scratch may take to match reuse; 0s leaves it out.",
)
@click.option(
    "--stock",
    "stock_seconds",
    type=options.Duration(),
    default="0s",
    show_default=True,
    metavar="DURATION",
    help="How long MetaSchedule as it comes, with its own builder and runner, is run, too.",
)
@click.option("--no-torch", "with_torch", flag_value=False, default=True, help="Leave PyTorch out.")
@click.option("--again", is_flag=True, help="Measure also what has a result already.")
@cache_option
@options.device_options
@json_option
def evaluate(
    models: tuple[str, ...],
    url: str,
    results: Path,
    cache: Path,
    target: str,
    threads: int | None,
    as_json: bool,
    **choices: Any,
) -> None:
    """Measure reuse against full auto-scheduling, ONNX Runtime and PyTorch.

    A model's own records, and those of its architecture under other names, are withheld from
    reuse. It takes some 20 minutes for each model. Stopped (Ctrl-C), it goes on from there the
    next time.

    \b
    Example:
      tunebank lab evaluate --bank zoo.db --models resnet18,bert_128 --repeats 3
    """
    from dataclasses import asdict

    from tunebank.cli.progress import Progress
    from tunebank.lab.evaluation import evaluate_models
    from tunebank.lab.experiments import EvaluationSettings

    settings = EvaluationSettings(results=results, **choices)
    with Progress() as progress:
        rows = evaluate_models(
            models,
            settings,
            cache=cache,
            url=url,
            target=target,
            threads=threads,
            report=progress,
        )
    if as_json:
        print_json({"rows": [asdict(row) for row in rows]})
        return
    _print(rows)
    note(f"results are in {results}; `tunebank lab report` draws them")


def _print(rows: Any) -> None:
    from tunebank.lab.summary import summarise
    from tunebank.lab.tables import latency_table
    from tunebank.report import print_table

    table = latency_table(summarise(rows))
    print_table(table.columns, table.rows, numbers=table.columns[1:])
