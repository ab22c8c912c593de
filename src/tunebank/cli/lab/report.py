"""`tunebank lab report`: the results of the experiments as tables and pictures."""

from __future__ import annotations

from pathlib import Path

import click

from tunebank.cli.output import json_option, print_data


@click.command()
@click.option(
    "--results",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("results/evaluation.jsonl"),
    show_default=True,
    help="File of the results, as `lab evaluate` writes it.",
)
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("results/report"),
    show_default=True,
    help="Folder of the report: report.html, tables.md, pictures.",
)
@json_option
def report(results: Path, folder: Path, as_json: bool) -> None:
    """Draw the results of `lab evaluate`: one page, and the same as Markdown with pictures.

    \b
    Example:
      tunebank lab report --results results/evaluation.jsonl -o results/report
    """
    from tunebank.lab.report import write_report

    written = [str(path) for path in write_report(results, folder)]
    print_data({"files": written}, "\n".join(written), as_json)
