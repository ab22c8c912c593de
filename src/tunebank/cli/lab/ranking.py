"""`tunebank lab ranking`: which order of schedules is better before anything is measured."""

from __future__ import annotations

import click

from tunebank.cli import options
from tunebank.cli.lab.common import models_option
from tunebank.cli.output import json_option, print_json


@click.command()
@models_option("the thirteen of the experiments")
@click.option(
    "--bank", "url", required=True, metavar="URL", help="The trials, as `lab tune` makes them."
)
@options.device_options
@json_option
def ranking(
    models: tuple[str, ...], url: str, target: str, threads: int | None, as_json: bool
) -> None:
    """Compare orders of schedules: by the estimate, by a learnt cost model, by lot.

    Each model's trials are put in order by what was learnt from other architectures. It measures
    nothing, and takes some minutes.

    \b
    Example:
      tunebank lab ranking --bank zoo.db --models resnet18,bert_128
    """
    from dataclasses import asdict

    from tunebank.cli.progress import Progress
    from tunebank.lab.ranking import rank_models, ranking_table
    from tunebank.report import print_table

    with Progress() as progress:
        rankings = rank_models(models, url=url, target=target, threads=threads, report=progress)
    if as_json:
        print_json({"models": [asdict(one) for one in rankings]})
        return
    table = ranking_table(rankings)
    click.echo(f"{table.title}. {table.note}")
    print_table(table.columns, table.rows, numbers=table.columns[1:])
