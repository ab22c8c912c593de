"""The command line: one file per command, which parses, calls and prints."""

from tunebank.cli.main import main

__all__ = ["main"]
