"""`tunebank run`: an artifact on arrays."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunebank.cli import options
from tunebank.cli.output import json_option, print_json

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option(
    "--input",
    "inputs",
    type=options.NamedFile(),
    metavar="NAME=FILE.npy",
    multiple=True,
    callback=options.once_each,
    help="Array for an input; repeatable.",
)
@click.option("--random", "is_random", is_flag=True, help="Random arrays for the other inputs.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of the random arrays.")
@click.option(
    "--output",
    "folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder to write the outputs to, one .npy file each.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads.  [default: the artifact's]")
@json_option
def run(
    artifact: Path,
    inputs: dict[str, Path],
    is_random: bool,
    seed: int,
    folder: Path | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Run ARTIFACT once and describe its outputs.

    \b
    Example:
      tunebank run model.tuned --input x=x.npy --output results
    """
    from tunebank.cli.arrays import feed_for, read_array, write_arrays
    from tunebank.errors import UsageError
    from tunebank.runtime import Session

    if not inputs and not is_random:
        raise UsageError("no inputs; give --input NAME=FILE.npy for each, or --random")
    given = {name: read_array(path) for name, path in inputs.items()}
    session = Session(artifact, threads=threads)
    function = session.manifest.function_for({n: array.shape for n, array in given.items()})
    specs = session.manifest.inputs if function is None else function.inputs
    feed = feed_for(specs, given, seed=seed if is_random else None)
    start = time.perf_counter()
    results = session.run(None, feed)
    elapsed_ms = 1e3 * (time.perf_counter() - start)
    outputs = dict(zip((o.name for o in session.manifest.outputs), results, strict=True))
    files = write_arrays(folder, outputs) if folder is not None else {}
    described = [_describe(name, array, files.get(name)) for name, array in outputs.items()]
    if as_json:
        print_json({"first_run_ms": elapsed_ms, "outputs": described})
    else:
        _print(described)


def _describe(name: str, array: Array, file: Path | None) -> dict[str, Any]:
    import numpy as np

    values = array.astype(np.float64)
    finite = values[np.isfinite(values)]
    statistics: Mapping[str, Any] = dict.fromkeys(("min", "max", "mean", "std"))
    if finite.size:
        statistics = {key: float(getattr(finite, key)()) for key in statistics}
    return {
        "name": name,
        "shape": list(array.shape),
        "dtype": str(array.dtype),
        **statistics,
        "not_finite": int(values.size - finite.size),
        "file": str(file) if file is not None else None,
    }


def _print(described: Sequence[Mapping[str, Any]]) -> None:
    from tunebank.report import print_table

    columns = ("name", "shape", "dtype", "min", "max", "mean", "std", "not_finite", "file")
    print_table(columns, [[_text(row[column]) for column in columns] for row in described])


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return "x".join(map(str, value)) or "scalar"
    return f"{value:.5g}" if isinstance(value, float) else str(value)
