"""`tunebank plan`: which kernels of a model have donors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tunebank.cli import options
from tunebank.cli.output import json_option, print_json


@click.command()
@options.model_argument
@options.banks_option
@options.device_options
@options.input_shape_option
@options.exclude_source_option
@json_option
def plan(model: Path, as_json: bool, **choices: Any) -> None:
    """Show which kernels of MODEL have donors, and what to expect; measures nothing.

    \b
    Example:
      tunebank plan model.onnx --bank team.db
    """
    from tunebank import api

    data = api.plan_model(model, **choices).to_json()
    if as_json:
        print_json(data)
        return
    from tunebank.report import plan_lines, plan_rows, print_plan

    print_plan(plan_rows(data["kernels"]))
    click.echo()
    for line in plan_lines(data):
        click.echo(line)
