"""`tunebank lab`: the experiments. One file per command."""

from __future__ import annotations

import click

from tunebank.cli.lab.coverage import coverage
from tunebank.cli.lab.tune import tune


@click.group()
def lab() -> None:
    """Experiments with the networks that people deploy.

    \b
    Example:
      tunebank lab tune --bank zoo.db --models resnet18,bert_128
      tunebank lab coverage --models resnet18,bert_128
    """


lab.add_command(coverage)
lab.add_command(tune)
