"""Progress off a terminal: plain lines, and not too many."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import click
import pytest

from tunebank.cli import progress
from tunebank.cli.output import Settings
from tunebank.cli.progress import Progress, clock, stand


def search(seconds: float, **changes: Any) -> SimpleNamespace:
    event = {"seconds": seconds, "budget_seconds": 60.0, "measured": 12, "kernels_us": 21500.0}
    return SimpleNamespace(**(event | changes))


def test_a_search() -> None:
    now = stand(search(15.0))
    assert (now.done, now.left_seconds) == (0.25, 45.0)
    assert now.text == "12 candidates measured, kernels 21.50 ms"
    late = stand(search(61.0, kernels_us=None))
    assert (late.done, late.left_seconds) == (1.0, 0.0)
    assert late.text == "12 candidates measured"


def test_tuning() -> None:
    event = SimpleNamespace(
        kernel=SimpleNamespace(name="conv2d"), trials=50, total_trials=100, new_trials=25,
        seconds=10.0, best_us=123.4,
    )  # fmt: skip
    now = stand(event)
    assert now.text == "50 of 100 trials, conv2d: 123 us"
    assert (now.done, now.left_seconds) == (0.5, 20.0), "only this run's trials tell the pace"


def test_rounds() -> None:
    now = stand(SimpleNamespace(round=3, rounds=10))
    assert (now.text, now.done) == ("round 3 of 10", 0.2), "the third is yet to be run"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")],
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands still."""
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now.seconds)
    return now


def test_lines_come_now_and_then(at: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    with click.Context(click.Command("x")), Progress() as report:
        report("reading the model")
        for at.seconds in range(100, 125):
            report(search(at.seconds - 100))
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert lines[0] == "reading the model"
    assert len(lines) == 4, "at 100, 110 and 120 s"
    assert lines[-1] == " 33%  12 candidates measured, kernels 21.50 ms, 40 s left"


def test_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with click.Context(click.Command("x"), obj=Settings(quiet=True)), Progress() as report:
        report("reading the model")
        report(search(1.0))
    assert capsys.readouterr().err == ""


def test_a_bar_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with click.Context(click.Command("x")), Progress() as report:
        report("read [in brackets]")
        report(search(15.0))
        report(search(30.0))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "read [in brackets]" in captured.err
    assert "30 s left" in captured.err
