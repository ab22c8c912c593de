"""Types of option values."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from tunebank.cli.options import Duration, InputShape, NamedFile


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("60", 60), ("60s", 60), ("2m", 120), ("1.5min", 90), ("1h", 3600), ("0", 0),
        ("250ms", 0.25), (" 3 S ", 3),
    ],
)  # fmt: skip
def test_durations(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "-1s", "1d", "1e3", "nan", "inf", "1m30s", "1 000s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(click.BadParameter, match="60s, 2m or 1h"):
        Duration().convert(text, None, None)


def test_input_shapes() -> None:
    convert = InputShape().convert
    assert convert("x:1,3,224,224", None, None) == ("x", (1, 3, 224, 224))
    assert convert("input:0:8", None, None) == ("input:0", (8,))
    for text in ("x", "x:", ":1", "x:1,", "x:1,-1", "x:a", "x:0", "x:1x2", "x:²"):
        with pytest.raises(click.BadParameter, match=r"input:1,3,224,224"):
            convert(text, None, None)


def test_named_files() -> None:
    convert = NamedFile().convert
    assert convert("x=a=b.npy", None, None) == ("x", Path("a=b.npy"))
    for text in ("x", "=x.npy", "x="):
        with pytest.raises(click.BadParameter):
            convert(text, None, None)
