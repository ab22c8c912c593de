"""Our own command line run as a process: what it says, what it takes, how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

_SAMPLE_SECONDS = 0.2
_MIB = 1 << 20


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: exit code; negative if a signal ended it, None if the timeout did.
        output: what it wrote to stdout.
        log: what it wrote to stderr.
        seconds: wall time.
        peak_memory_mib: most memory that it and its children held together, of the samples.
    """

    code: int | None
    output: str
    log: str
    seconds: float
    peak_memory_mib: float


def run_tunebank(arguments: Sequence[str], *, timeout_seconds: float) -> Ended:
    """Runs `tunebank` with these arguments. When it ends, so do the processes it started."""
    command = [sys.executable, "-m", "tunebank", *arguments]
    start, peak = time.monotonic(), 0.0
    with tempfile.TemporaryDirectory(prefix="tunebank-") as folder:
        output, log = Path(folder) / "output", Path(folder) / "log"
        with output.open("wb") as out, log.open("wb") as err:
            process = subprocess.Popen(  # noqa: S603  our own command
                command, stdout=out, stderr=err, start_new_session=True
            )
        try:
            while process.poll() is None and time.monotonic() - start < timeout_seconds:
                peak = max(peak, _memory_mib(process.pid))
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_SAMPLE_SECONDS)
            code = process.returncode
        finally:
            _end_group(process)
        seconds = time.monotonic() - start
        texts = [path.read_text(errors="replace") for path in (output, log)]
    return Ended(code, texts[0], texts[1], seconds, peak)


def _memory_mib(pid: int) -> float:
    """Memory of a process and of all below it."""
    total = 0
    with suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with suppress(psutil.Error):
                total += process.memory_info().rss
    return total / _MIB


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and whatever it started: it leads a group of its own."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
