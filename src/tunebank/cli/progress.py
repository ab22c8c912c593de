"""Progress on stderr: a bar with the time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import click

from tunebank.cli.output import settings

_SECONDS_BETWEEN_LINES = 10.0


@dataclass(frozen=True)
class Stand:
    """How far something is.

    Attributes:
        text: what has been reached.
        done: part done, 0 to 1; None for a mere remark.
        left_seconds: time left; None if unknown.
    """

    text: str
    done: float | None = None
    left_seconds: float | None = None


def stand(event: Any) -> Stand:
    """What is shown of an event of `tunebank.api`: a remark, or the state of a search."""
    if isinstance(event, Stand):
        return event
    if isinstance(event, str):
        return Stand(event)
    if hasattr(event, "total_trials"):
        return _tuning(event)
    if hasattr(event, "rounds"):
        return Stand(f"round {event.round} of {event.rounds}", (event.round - 1) / event.rounds)
    done = min(1.0, event.seconds / event.budget_seconds) if event.budget_seconds else 1.0
    best = f", kernels {event.kernels_us / 1e3:.2f} ms" if event.kernels_us else ""
    left = max(0.0, event.budget_seconds - event.seconds)
    return Stand(f"{event.measured} candidates measured{best}", done, left)


def _tuning(event: Any) -> Stand:
    best = f"{event.kernel.name}: {event.best_us:.0f} us" if event.best_us else event.kernel.name
    text = f"{event.trials} of {event.total_trials} trials, {best}"
    left = None
    if event.new_trials:
        left = event.seconds / event.new_trials * (event.total_trials - event.trials)
    return Stand(text, event.trials / max(1, event.total_trials), left)


class Progress:
    """A callback for `report=` that shows events; shows nothing if asked to be quiet.

    Use it as a context manager: it restores the terminal.
    """

    def __init__(self) -> None:
        self._quiet = settings().quiet
        self._bar: _Bar | None = None
        self._next_line = 0.0

    def __enter__(self) -> Progress:
        if not self._quiet and sys.stderr.isatty():
            self._bar = _Bar()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, event: Any) -> None:
        """Shows an event."""
        if self._quiet:
            return
        now = stand(event)
        if self._bar is not None:
            self._bar.show(now)
        elif now.done is None:
            click.echo(now.text, err=True)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _SECONDS_BETWEEN_LINES
            left = "" if now.left_seconds is None else f", {clock(now.left_seconds)} left"
            click.echo(f"{now.done:4.0%}  {now.text}{left}", err=True)


class _Bar:
    """A bar at the foot of the terminal; remarks scroll above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn
        from rich.progress import Progress as RichProgress

        columns = (
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.description}", markup=False),
            TextColumn("{task.fields[left]}", markup=False),
        )
        console = Console(stderr=True, markup=False, highlight=False)
        self._progress = RichProgress(*columns, console=console, transient=True)
        self._task: Any = None
        self._progress.start()

    def show(self, now: Stand) -> None:
        """Shows how far it is, or a remark."""
        if now.done is None:
            self._progress.console.print(now.text)
            return
        if self._task is None:
            self._task = self._progress.add_task("", total=1.0, left="")
        left = "" if now.left_seconds is None else f"{clock(now.left_seconds)} left"
        self._progress.update(self._task, completed=now.done, description=now.text, left=left)

    def close(self) -> None:
        """Removes the bar."""
        self._progress.stop()


def clock(seconds: float) -> str:
    """A duration as a person says it: `42 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
