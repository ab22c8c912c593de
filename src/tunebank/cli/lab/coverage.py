"""`tunebank lab coverage`: which networks work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunebank.cli import options
from tunebank.cli.lab.common import cache_option, models_option, names
from tunebank.cli.output import json_option, note, print_json

if TYPE_CHECKING:
    from tunebank.lab.coverage import CoverageProgress, Outcome

_MESSAGE_LIMIT = 120
_EXIT_REQUIREMENT_FAILED = 3


def _readers(ctx: click.Context, parameter: click.Parameter, text: str) -> tuple[str, ...]:
    from tunebank.lab.architectures.catalogue import FORMATS

    readers = names(ctx, parameter, text)
    unknown = [reader for reader in readers if reader not in FORMATS]
    if unknown or not readers:
        raise click.BadParameter(f"{text!r} names no readers; there are: {', '.join(FORMATS)}")
    return readers


@click.command()
@models_option("all")
@click.option(
    "--readers",
    default="onnx,torch",
    show_default=True,
    metavar="NAME,...",
    callback=_readers,
    help="Kinds of files to compile them from.",
)
@cache_option
@click.option(
    "--results",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File of outcomes, a line of JSON each; what is there is not run again.  "
    "[default: coverage.jsonl in the cache]",
)
@click.option(
    "--table", type=click.Path(dir_okay=False, path_type=Path), help="Markdown file to write."
)
@click.option(
    "--time-budget",
    type=options.Duration(),
    metavar="DURATION",
    default="0s",
    show_default=True,
    help="Search time for each.",
)
@click.option(
    "--timeout",
    type=options.Duration(),
    metavar="DURATION",
    default="300s",
    show_default=True,
    help="When to give a network up.",
)
@click.option(
    "--bench",
    is_flag=True,
    help="Time each beside ONNX Runtime too, the records of its architecture hidden.",
)
@click.option("--again", is_flag=True, help="Run also what has an outcome already.")
@click.option("--retry", is_flag=True, help="Run also what has failed before.")
@json_option
def coverage(
    models: tuple[str, ...],
    readers: tuple[str, ...],
    cache: Path,
    results: Path | None,
    table: Path | None,
    as_json: bool,
    **choices: Any,
) -> None:
    """Compile many networks, and show which work, with which numbers and at what cost.

    Each is compiled from an ONNX file and from a PyTorch program, built once with random weights.
    Stopped (Ctrl-C), it goes on from there the next time. Ends with exit code 3 if one fails.

    \b
    Example:
      tunebank lab coverage --models resnet18,bert_128 --table coverage.md
    """
    from tunebank.cli.progress import Progress
    from tunebank.lab.architectures.catalogue import find_entries
    from tunebank.lab.coverage import CoverageSettings, pairs_of, survey
    from tunebank.lab.coverage_table import write_markdown

    settings = CoverageSettings(
        cache=cache,
        results=results or cache / "coverage.jsonl",
        time_budget_seconds=choices["time_budget"],
        timeout_seconds=choices["timeout"],
        bench=choices["bench"],
        again=choices["again"],
        retry=choices["retry"],
    )
    pairs = pairs_of(find_entries(models), readers)
    with Progress() as progress:
        outcomes = survey(pairs, settings, lambda where: progress(_stand(where)))
    if table is not None:
        write_markdown(outcomes, table)
    _print(outcomes, as_json)
    note(f"outcomes are in {settings.results}")
    if any(outcome.failed for outcome in outcomes):
        click.get_current_context().exit(_EXIT_REQUIREMENT_FAILED)


def _stand(where: CoverageProgress) -> Any:
    from tunebank.cli.progress import Stand

    text = f"{where.finished} of {where.total} done, {where.doing}"
    return Stand(text, where.finished / max(1, where.total), where.left_seconds)


def _print(outcomes: list[Outcome], as_json: bool) -> None:
    from dataclasses import asdict

    from tunebank.lab.coverage_table import COLUMNS, NUMBERS, cells, summary
    from tunebank.report import print_table

    if as_json:
        failed = [f"{o.model} ({o.reader})" for o in outcomes if o.failed]
        print_json({"failed": failed, "outcomes": [asdict(outcome) for outcome in outcomes]})
        return
    rows = [cells(outcome, message_limit=_MESSAGE_LIMIT) for outcome in outcomes]
    styles = ["red" if outcome.failed else "green" for outcome in outcomes]
    print_table(COLUMNS, rows, numbers=NUMBERS, styles=styles)
    click.echo()
    click.echo(summary(outcomes))
