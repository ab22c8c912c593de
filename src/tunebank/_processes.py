"""What the processes that tunebank starts have in common. Imports nothing that takes time."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import IO

_PR_SET_PDEATHSIG = 1  # of Linux's <sys/prctl.h>


def environment() -> dict[str, str]:
    """Environment for a process of ours: its tunebank is this one."""
    package_root = str(Path(__file__).resolve().parents[1])
    inherited = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([package_root, inherited] if inherited else [package_root])
    return {**os.environ, "PYTHONPATH": path}


def follow_parent() -> None:
    """Asks Linux to end this process with the thread that started it, whatever it is doing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def own_channel() -> tuple[IO[bytes], IO[bytes]]:
    """The request and answer streams; whatever else prints to stdout goes to stderr."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return sys.stdin.buffer, answers


def obituary(code: int, log: bytes) -> str:
    """How a process ended, with the last line that it wrote.

    Args:
        code: exit code, negative for a signal, as `subprocess` has it.
        log: its standard error.
    """
    lines = log[-4000:].decode(errors="replace").strip().splitlines()
    last = f": {lines[-1].strip()[:300]}" if lines else ""
    if code >= 0:
        return f"exit code {code}{last}"
    try:
        return f"{signal.Signals(-code).name}{last}"
    except ValueError:
        return f"signal {-code}{last}"
