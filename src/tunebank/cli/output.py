"""What every command prints alike: data on stdout, as text or JSON; notes on stderr."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import click

SCHEMA_VERSION = 1
"""Of the JSON that commands print; grows when a key changes its meaning or goes."""

Command = Callable[..., None]


@dataclass
class Settings:
    """What the global options set.

    Attributes:
        debug: show tracebacks.
        quiet: no progress and no notes.
    """

    debug: bool = False
    quiet: bool = False


def settings() -> Settings:
    """The settings of the command that is running."""
    return click.get_current_context().ensure_object(Settings)


def settings_options(command: Command) -> Command:
    """The global options; commands take them too, where one types them after a failure."""

    def store(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
        if value and parameter.name is not None:
            setattr(ctx.ensure_object(Settings), parameter.name, True)

    flags: dict[str, Any] = {
        "is_flag": True,
        "expose_value": False,
        "is_eager": True,
        "callback": store,
    }
    command = click.option("-q", "--quiet", help="No progress, no notes.", **flags)(command)
    return click.option("--debug", help="Show tracebacks.", **flags)(command)


def json_option(command: Command) -> Command:
    """`--json`, and the global options."""
    command = settings_options(command)
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def print_data(data: Mapping[str, Any], text: str, as_json: bool) -> None:
    """Prints data as JSON, or else the text."""
    if as_json:
        print_json(data)
    else:
        click.echo(text)


def print_json(data: Mapping[str, Any]) -> None:
    """Prints a JSON object; what is not a finite number becomes null, as JSON has none."""
    whole = {"schema_version": SCHEMA_VERSION} | dict(data)
    click.echo(json.dumps(_finite(whole), indent=2, allow_nan=False))


def note(text: str) -> None:
    """Says something on stderr, unless asked to be quiet."""
    if not settings().quiet:
        click.echo(text, err=True)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
