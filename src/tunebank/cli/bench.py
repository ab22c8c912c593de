"""`tunebank bench`: an artifact timed against others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tunebank.cli.output import json_option, print_json


def _names(ctx: click.Context, parameter: click.Parameter, text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise click.BadParameter("names nothing; give onnxruntime, untuned or a path")
    return names


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option(
    "--against",
    default="onnxruntime",
    show_default=True,
    metavar="NAME,...",
    callback=_names,
    help="onnxruntime, untuned (the default schedules), other artifacts or ONNX files.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads.  [default: the artifact's]")
@json_option
def bench(artifact: Path, as_json: bool, **choices: Any) -> None:
    """Time ARTIFACT and others in turns, on the same inputs and threads.

    \b
    Example:
      tunebank bench model.tuned --against onnxruntime,untuned
    """
    from tunebank import api
    from tunebank.cli.progress import Progress

    with Progress() as progress:
        data = api.bench_artifact(artifact, report=progress, **choices).to_json()
    if as_json:
        print_json(data)
        return
    from tunebank.report import bench_rows, print_bench

    print_bench(bench_rows(data, name=str(artifact)))
