"""Worker processes kept warm: one request at a time each, restarted when they die or hang."""

from __future__ import annotations

import contextlib
import select
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from tunebank._processes import environment, obituary
from tunebank.errors import MeasurementError
from tunebank.measure.protocol import Message, read_message, write_message

START_TIMEOUT_SECONDS = 60.0
START_ATTEMPTS = 3
_LAST_SECONDS = 2.0
"""How long a worker that has closed its stream may take to end."""


class WorkerCrashError(Exception):
    """The worker process died; the message says how."""


class WorkerTimeoutError(Exception):
    """The worker did not answer in time and was killed."""


@dataclass(frozen=True)
class _Running:
    process: subprocess.Popen[bytes]
    requests: IO[bytes]
    answers: IO[bytes]
    log: IO[bytes]


class WorkerProcess:
    """One worker process; starts at the first request and again after it was lost."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._running: _Running | None = None
        self._is_ready = False
        self._deadline = 0.0
        self.generation = 0
        """Rises when the process is lost: programs built in an earlier generation are gone."""

    def start(self) -> None:
        """Starts the process without waiting, so that several can start side by side."""
        if self._running is not None:
            return
        log = tempfile.TemporaryFile()  # noqa: SIM115  closed with the process
        process = subprocess.Popen(  # noqa: S603  this very program
            [sys.executable, "-m", "tunebank.measure.worker", str(self._threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment(),
        )
        assert process.stdin is not None
        assert process.stdout is not None
        self._running = _Running(process, process.stdin, process.stdout, log)
        self._is_ready = False
        self._deadline = time.monotonic() + START_TIMEOUT_SECONDS

    def wait_until_ready(self) -> None:
        """Starts the process if need be, and waits until it takes requests.

        Raises:
            MeasurementError: it does not start.
        """
        for attempt in range(START_ATTEMPTS):
            self.start()
            if self._is_ready:
                return
            try:
                self.receive()
                self._is_ready = True
            except (WorkerCrashError, WorkerTimeoutError) as error:
                if attempt == START_ATTEMPTS - 1:
                    raise MeasurementError(
                        f"a measuring process does not start: {error}; see `tunebank doctor`"
                    ) from error

    def send(self, request: Message, *, timeout_seconds: float) -> None:
        """Sends a request; the answer must come within the timeout.

        Raises:
            MeasurementError: the process does not start.
        """
        self.wait_until_ready()
        assert self._running is not None
        self._deadline = time.monotonic() + timeout_seconds
        with contextlib.suppress(BrokenPipeError):  # `receive` says how it died
            write_message(self._running.requests, request)

    def receive(self) -> Message:
        """The answer to the last request.

        Raises:
            WorkerCrashError: the process died; it starts anew with the next request.
            WorkerTimeoutError: the answer did not come in time; likewise.
        """
        assert self._running is not None
        wait = max(0.0, self._deadline - time.monotonic())
        ready, _, _ = select.select([self._running.answers], [], [], wait)
        if not ready:
            self.stop()
            raise WorkerTimeoutError("no answer in time")
        try:
            answer = read_message(self._running.answers)
        except ValueError as error:  # a candidate may have written over anything
            self.stop()
            raise WorkerCrashError(f"worker answered nonsense: {error}") from error
        if answer is None:
            reason = self._obituary()
            self.stop()
            raise WorkerCrashError(reason)
        return answer

    def fileno(self) -> int:
        """Of the answer stream, for `select`."""
        assert self._running is not None
        return self._running.answers.fileno()

    @property
    def deadline(self) -> float:
        """Monotonic time by which the pending answer must come."""
        return self._deadline

    def stop(self) -> None:
        """Kills the process."""
        if self._running is None:
            return
        running, self._running = self._running, None
        self.generation += 1
        running.process.kill()
        running.process.wait()
        for stream in (running.requests, running.answers, running.log):
            with contextlib.suppress(OSError):
                stream.close()

    def _obituary(self) -> str:
        assert self._running is not None
        try:
            code = self._running.process.wait(timeout=_LAST_SECONDS)
        except subprocess.TimeoutExpired:
            return "worker closed its stream"
        self._running.log.seek(0)
        return f"worker died by {obituary(code, self._running.log.read())}"


class WorkerPool:
    """Several workers, one per core.

    Attributes:
        workers: the workers.
        folder: for what they make; it goes when they do.
    """

    def __init__(self, *, workers: int, threads: int) -> None:
        self.workers = [WorkerProcess(threads) for _ in range(workers)]
        self._folder = tempfile.TemporaryDirectory(prefix="tunebank-")
        self.folder = Path(self._folder.name)

    def start(self) -> None:
        """Starts all workers without waiting for them."""
        for worker in self.workers:
            worker.start()

    def wait_until_ready(self) -> None:
        """Waits for all workers.

        Raises:
            MeasurementError: one does not start.
        """
        for worker in self.workers:
            worker.wait_until_ready()

    def close(self) -> None:
        """Ends all workers."""
        for worker in self.workers:
            worker.stop()
        self._folder.cleanup()

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
