"""What the commands of `tunebank lab` have in common: which networks, and where their files lie."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from tunebank.cli.output import Command


def names(ctx: click.Context, parameter: click.Parameter, text: str) -> tuple[str, ...]:
    """Callback of an option: names between commas, each once."""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def models_option(default: str) -> Callable[[Command], Command]:
    """Which networks; `default` says which ones for none."""
    return click.option(
        "--models",
        default="",
        metavar="NAME,...",
        callback=names,
        help=f"Networks.  [default: {default}]",
    )


def cache_option(command: Command) -> Command:
    """Where the networks' files are."""
    return click.option(
        "--cache",
        type=click.Path(file_okay=False, path_type=Path),
        callback=_cache,
        help="Folder of the model files, some 10 GB.  [default: under the platform's caches]",
    )(command)


def _cache(ctx: click.Context, parameter: click.Parameter, given: Path | None) -> Path:
    if given is not None:
        return given
    import platformdirs

    return Path(platformdirs.user_cache_dir("tunebank")) / "lab"
