"""`tunebank lab`: the experiments. One file per command."""

from __future__ import annotations

import click

from tunebank.cli.lab.coverage import coverage
from tunebank.cli.lab.evaluate import evaluate
from tunebank.cli.lab.ranking import ranking
from tunebank.cli.lab.report import report
from tunebank.cli.lab.tune import tune


@click.group()
def lab() -> None:
    """Experiments with the networks that people deploy.

    \b
    Example:
      tunebank lab tune --bank zoo.db --models resnet18,bert_128,googlenet
      tunebank lab evaluate --bank zoo.db --models resnet18,bert_128
      tunebank lab report
    """


for command in (coverage, tune, evaluate, ranking, report):
    lab.add_command(command)
