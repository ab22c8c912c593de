"""What the front half is doing, noted where a crash can't take it away.

A segmentation fault in TVM leaves no exception. So each step writes what it begins into a small
file, over what was there, and whoever started the process reads the last word.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_SIZE = 512


@dataclass(frozen=True)
class Step:
    """A step: a pass or a part of the reading, and the model's node that it is at, if any."""

    name: str
    node: str = ""

    def __str__(self) -> str:
        return f"{self.name}, node {self.node}" if self.node else self.name


class Notebook:
    """Writes steps; the last one can be read after a crash."""

    def __init__(self, file: Path) -> None:
        self._descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)

    def note(self, name: str, node: str = "") -> None:
        """Notes that a step begins."""
        text = f"{name}\n{node}".encode()[:_SIZE]
        os.pwrite(self._descriptor, text.ljust(_SIZE, b"\0"), 0)

    def close(self) -> None:
        """Closes the file."""
        os.close(self._descriptor)


def last_step(file: Path) -> Step:
    """The last step that was noted in a file."""
    try:
        text = file.read_bytes().rstrip(b"\0").decode(errors="replace")
    except OSError:
        text = ""
    name, _, node = text.partition("\n")
    return Step(name or "start", " ".join(node.split()))
