"""`tunebank`: finds the command, and turns errors into one line and an exit code.

A command's module is imported when the command runs, so that `tunebank --help` and a mistyped
option answer at once. No command imports TVM before its arguments have been read.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from tunebank._version import __version__
from tunebank.cli.output import Settings, settings_options
from tunebank.errors import TunebankError

_EXIT_INTERRUPTED = 130

_COMMANDS = {
    "compile": ("tunebank.cli.compile:compile_", "Compile a model with reused schedules."),
    "tune": ("tunebank.cli.tune:tune", "Auto-schedule a model's kernels, to fill a bank."),
    "plan": ("tunebank.cli.plan:plan", "Show which kernels have donors; measures nothing."),
    "run": ("tunebank.cli.run:run", "Run a compiled model."),
    "bench": ("tunebank.cli.bench:bench", "Time a compiled model against others."),
    "bank": ("tunebank.cli.bank:bank", "Look into banks, fill them, carry them elsewhere."),
    "lab": ("tunebank.cli.lab:lab", "Experiments with the networks that people deploy."),
    "doctor": ("tunebank.cli.doctor:doctor", "Check this machine, and say how to mend it."),
}
"""By name: where the command is, and what the list of commands says of it."""


class _LazyGroup(click.Group):
    """A group that lists its commands without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See `click.Group`."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """See `click.Group`."""
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See `click.Group`."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tunebank")
@settings_options
def cli() -> None:
    """Compile DNNs at tuned speed in about a minute, by reusing tuned schedules.

    \b
    Example:
      tunebank compile model.onnx -o model.tuned
      tunebank bench model.tuned --against onnxruntime
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and ends the process."""
    settings = Settings()
    try:
        with _library_warnings_hidden(settings):
            code = _run(arguments, settings)
        sys.stdout.flush()
    except BrokenPipeError:
        code = _reader_gone()
    sys.exit(code)


def _run(arguments: Sequence[str] | None, settings: Settings) -> int:
    """Runs a command; returns the exit code."""
    try:
        value = cli.main(arguments, prog_name="tunebank", obj=settings, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        _say("interrupted")
        return _EXIT_INTERRUPTED
    except TunebankError as error:
        if settings.debug:
            traceback.print_exc()
        _say(f"error: {error}")
        return error.exit_code
    except BrokenPipeError:
        raise
    except Exception as error:
        if settings.debug:
            traceback.print_exc()
            return 1
        _say(f"error: {_one_line(error)}; `tunebank --debug` shows where")
        return 1
    # Outside of standalone mode click returns the code of `ctx.exit` as it returns results.
    return value if isinstance(value, int) else 0


@contextmanager
def _library_warnings_hidden(settings: Settings) -> Iterator[None]:
    """Libraries warn their callers in Python's words; a user sees them with `--debug` alone."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def show_if_debugging(*about: Any, **more: Any) -> None:
            if settings.debug:
                show(*about, **more)

        warnings.showwarning = show_if_debugging
        yield


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _say(line: str) -> None:
    click.echo(line, err=True)


def _reader_gone() -> int:
    """Whoever read stdout has gone, as `head` does: nothing is wrong, nothing is said."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1
