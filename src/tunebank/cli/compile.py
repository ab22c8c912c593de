"""`tunebank compile`: a model file to an artifact."""

from __future__ import annotations

from pathlib import Path

import click

from tunebank.cli import options
from tunebank.cli.output import json_option, note, print_json


@click.command("compile")
@options.model_argument
@click.option(
    "-o", "--output", "out", type=click.Path(path_type=Path), required=True, help="Artifact folder."
)
@options.banks_option
@options.device_options
@click.option(
    "--time-budget",
    type=options.Duration(),
    metavar="DURATION",
    default="60s",
    show_default=True,
    help="Search time, such as 60s, 2m or 1h; 0 measures nothing.",
)
@options.input_shape_option
@options.exclude_source_option
@click.option(
    "--no-winograd",
    is_flag=True,
    help="No Winograd filtering of convolutions, which is faster where it fits and rounds more.",
)
@click.option("--no-verify", is_flag=True, help="Don't compare the numbers with ONNX Runtime's.")
@json_option
def compile_(
    model: Path,
    out: Path,
    banks: tuple[str, ...],
    target: str,
    threads: int | None,
    time_budget: float,
    input_shapes: dict[str, list[tuple[int, ...]]],
    dims: dict[str, tuple[int, ...]],
    exclude_sources: tuple[str, ...],
    no_winograd: bool,
    no_verify: bool,
    as_json: bool,
) -> None:
    """Compile MODEL, an ONNX file or a PyTorch program (.pt2), with schedules reused from banks.

    Given several shapes, the artifact holds the model for each of them, and shares the weights.
    Interrupted during the search (Ctrl-C), it compiles with what it has found by then.

    \b
    Example:
      tunebank compile model.onnx -o model.tuned --time-budget 60s
      tunebank compile bert.onnx -o bert.tuned --dim batch=1 --dim length=128,256
    """
    from tunebank import api
    from tunebank.cli.progress import Progress

    with Progress() as progress:
        result = api.compile_model(
            model,
            out,
            banks=banks,
            target=target,
            threads=threads,
            time_budget_seconds=time_budget,
            input_shapes=input_shapes,
            dims=dims,
            exclude_sources=exclude_sources,
            winograd=not no_winograd,
            verify=not no_verify,
            report=progress,
        )
    data = result.to_json()
    if as_json:
        print_json(data)
        return
    from tunebank.report import kernel_rows, print_kernels, summary_lines

    print_kernels(kernel_rows(data["kernels"]))
    click.echo()
    for line in summary_lines(data):
        click.echo(line)
    note(f"{out} is ready: `tunebank run {out} --random`")
