"""`tunebank bench`: an artifact timed against others."""

from __future__ import annotations

from pathlib import Path

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
@click.option(
    "--profile",
    is_flag=True,
    help="Time each kernel in the model instead.",
)
@json_option
def bench(
    artifact: Path, against: tuple[str, ...], threads: int | None, profile: bool, as_json: bool
) -> None:
    """Time ARTIFACT and others in turns, on the same inputs and threads.

    \b
    Example:
      tunebank bench model.tuned --against onnxruntime,untuned
      tunebank bench model.tuned --profile
    """
    if profile:
        _profile(artifact, threads, as_json)
        return
    from tunebank import api
    from tunebank.cli.progress import Progress

    with Progress() as progress:
        found = api.bench_artifact(artifact, against=against, threads=threads, report=progress)
    data = found.to_json()
    if as_json:
        print_json(data)
        return
    from tunebank.report import bench_rows, print_bench

    print_bench(bench_rows(data, name=str(artifact)))


def _profile(artifact: Path, threads: int | None, as_json: bool) -> None:
    from tunebank import api
    from tunebank.cli.progress import Progress

    with Progress() as progress:
        data = api.profile_artifact(artifact, threads=threads, report=progress).to_json()
    if as_json:
        print_json(data)
        return
    from tunebank.report import PROFILE_COLUMNS, print_table, profile_rows

    print_table(PROFILE_COLUMNS, profile_rows(data), numbers=PROFILE_COLUMNS[1:])
    click.echo(
        f"\na run takes {data['run_us'] / 1e3:.2f} ms; this machine does "
        f"{data['peak_gflop_per_s']:.0f} GFLOP/s on {data['threads']} threads, measured"
    )
