"""Options that several commands have, and the types of their values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from tunebank.cli.output import Command

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|min|h)?")
_UNIT_SECONDS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


class Duration(click.ParamType[float]):
    """`60s`, `2m`, `1h`, or a number of seconds; a float of seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """See `click.ParamType`."""
        if isinstance(value, (int, float)):
            return float(value)
        found = _DURATION.fullmatch(str(value).strip().lower())
        if found is None:
            self.fail(f"{value!r} is not a duration; give one such as 60s, 2m or 1h", param, ctx)
        return float(found[1]) * _UNIT_SECONDS[found[2] or "s"]


class InputShape(click.ParamType[tuple[str, tuple[int, ...]]]):
    """`name:1,3,224,224`; a name and its shape. The name itself may hold colons."""

    name = "name:shape"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, tuple[int, ...]]:
        """See `click.ParamType`."""
        if isinstance(value, tuple):
            return value
        name, _, shape = str(value).rpartition(":")
        extents = shape.split(",")
        if not name or not all(e.strip().isdecimal() and int(e) > 0 for e in extents):
            self.fail(
                f"{value!r} is not a name and a shape; give them as input:1,3,224,224", param, ctx
            )
        return name, tuple(int(extent) for extent in extents)


class NamedFile(click.ParamType[tuple[str, Path]]):
    """`name=file.npy`; a name and a path."""

    name = "name=file"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Path]:
        """See `click.ParamType`."""
        if isinstance(value, tuple):
            return value
        name, _, path = str(value).partition("=")
        if not name or not path:
            self.fail(f"{value!r} is not a name and a file; give them as x=x.npy", param, ctx)
        return name, Path(path)


def once_each(
    ctx: click.Context, parameter: click.Parameter, pairs: Sequence[tuple[str, Any]]
) -> dict[str, Any]:
    """Callback of a repeatable option: its pairs as a dictionary, no name given twice."""
    names = [name for name, _ in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise click.BadParameter(f"{', '.join(twice)} is given twice", ctx, parameter)
    return dict(pairs)


def model_argument(command: Command) -> Command:
    """The model file. Whether it is there is for the reader to say, in its own words."""
    return click.argument("model", type=click.Path(path_type=Path))(command)


def device_options(command: Command) -> Command:
    """What to compile for."""
    command = click.option(
        "--threads", type=click.IntRange(min=1), help="Threads.  [default: the physical cores]"
    )(command)
    return click.option(
        "--target",
        default="auto",
        show_default=True,
        metavar="auto|JSON|TAG",
        help="CPU to compile for; auto is this machine's.",
    )(command)


class DimValue(click.ParamType[tuple[str, tuple[int, ...]]]):
    """`batch=1,4`; the name of a symbolic dimension and its values."""

    name = "name=values"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, tuple[int, ...]]:
        """See `click.ParamType`."""
        if isinstance(value, tuple):
            return value
        name, _, values = str(value).rpartition("=")
        parts = values.split(",")
        if not name or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
            self.fail(f"{value!r} is no dimension with values; give them as batch=1,4", param, ctx)
        return name, tuple(int(part) for part in parts)


def _grouped(
    ctx: click.Context, parameter: click.Parameter, pairs: Sequence[tuple[str, Any]]
) -> dict[str, list[Any]]:
    """Callback of a repeatable option: by name the values in the order given."""
    grouped: dict[str, list[Any]] = {}
    for name, value in pairs:
        grouped.setdefault(name, []).append(value)
    return grouped


def input_shape_option(command: Command) -> Command:
    """Shapes for inputs that the model leaves open."""
    command = click.option(
        "--dim",
        "dims",
        type=DimValue(),
        metavar="NAME=1,4",
        multiple=True,
        callback=once_each,
        help="Values of a dimension that the model leaves open, by its name: the model is compiled "
        "for each; repeatable, for another dimension.",
    )(command)
    return click.option(
        "--input-shape",
        "input_shapes",
        type=InputShape(),
        metavar="NAME:1,3,224,224",
        multiple=True,
        callback=_grouped,
        help="Shape of an input that the model leaves open; repeatable, for other inputs, or for "
        "several shapes of one: the model is compiled for each.",
    )(command)


def banks_option(command: Command) -> Command:
    """Banks to search, in order."""
    return click.option(
        "--bank",
        "banks",
        metavar="URL",
        multiple=True,
        help="SQLAlchemy URL or path of an SQLite file; repeatable: all are searched, the first "
        "is written.  [default: $TUNEBANK_BANK, else the platform's data directory]",
    )(command)


def bank_option(command: Command) -> Command:
    """The one bank that a command works on."""
    return click.option(
        "--bank",
        "url",
        metavar="URL",
        help="SQLAlchemy URL or path of an SQLite file.  [default: $TUNEBANK_BANK, else the "
        "platform's data directory]",
    )(command)


def exclude_source_option(command: Command) -> Command:
    """Models whose records are hidden."""
    return click.option(
        "--exclude-source",
        "exclude_sources",
        metavar="NAME",
        multiple=True,
        help="Hide all records tuned for this model; repeatable.",
    )(command)
