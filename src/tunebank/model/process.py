"""The reading process seen from outside: started, asked, its crashes told and survived."""

from __future__ import annotations

import contextlib
import json
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from tunebank._processes import environment, obituary
from tunebank.errors import ModelError, TunebankError
from tunebank.model.notes import last_step
from tunebank.model.request import (
    ANSWER_FILE,
    NODES_FILE,
    REQUEST_FILE,
    STEP_FILE,
    Request,
    error_of,
)
from tunebank.model.strategy import STRATEGIES

TIMEOUT_SECONDS = 900.0
_SEARCH_SECONDS = 60.0  # to find the node that TVM fails at


@dataclass(frozen=True)
class Answer:
    """What the reading process found.

    Attributes:
        data: its answer; see `reader.py`.
        strategy: name of the strategy that worked.
        warnings: what failed before it.
    """

    data: dict[str, Any]
    strategy: str
    warnings: tuple[str, ...]


class Reader:
    """A process that reads models. Started early, it is ready when the request comes.

    Use it as a context manager: the process ends with the block.
    """

    def __init__(self, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._timeout_seconds = timeout_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed with the process

    def start(self) -> None:
        """Starts the process and returns at once."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-c", "from tunebank.model.reader import serve; serve()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=environment(),
            )

    def read(
        self, request: Request, folder: Path, *, report: Callable[[str], None] = lambda text: None
    ) -> Answer:
        """Reads a model into a folder, by the first strategy that works.

        Args:
            request: what to read; its strategy is where to begin.
            folder: an empty folder.
            report: called with a line when a strategy has failed.

        Raises:
            ModelError: the model is bad, or no strategy works; the message names the step and
                the model's node.
            MissingExtraError: reading this kind of file takes an extra.
        """
        failures: list[str] = []
        culprit = ""
        for index in range(request.strategy, len(STRATEGIES)):
            this = replace(request, strategy=index)
            data, failure = self._attempt(this, folder)
            if not failure:
                return Answer(data, STRATEGIES[index].name, tuple(failures))
            failures.append(f"{failure} (strategy: {STRATEGIES[index].name})")
            if index + 1 < len(STRATEGIES):
                report(f"{request.path}: TVM fails; trying another way")
            elif not last_step(folder / STEP_FILE).node:
                report(f"{request.path}: TVM fails; looking for the node")
                culprit = self._culprit(this, folder)
        raise ModelError(f"{request.path}: TVM can't compile it{culprit}: {'; '.join(failures)}")

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()
            process.communicate()

    def _culprit(self, request: Request, folder: Path) -> str:
        """The node that a step fails at: the last of the shortest graph that it fails with."""
        step = last_step(folder / STEP_FILE)
        names = _read_json(folder / NODES_FILE)

        def fails(count: int) -> bool:
            try:
                _, failure = self._attempt(replace(request, nodes=count), folder)
            except TunebankError:
                return False
            return bool(failure) and last_step(folder / STEP_FILE) == step

        if not isinstance(names, list) or not names or not fails(len(names)):
            return ""
        passing, failing = 0, len(names)
        end = time.monotonic() + _SEARCH_SECONDS
        while failing - passing > 1 and time.monotonic() < end:
            middle = (passing + failing) // 2
            if fails(middle):
                failing = middle
            else:
                passing = middle
        return f", at or before node {names[failing - 1]}"

    def _attempt(self, request: Request, folder: Path) -> tuple[dict[str, Any], str]:
        """The answer; or what failed and where."""
        _empty(folder)
        (folder / REQUEST_FILE).write_text(json.dumps(asdict(request)))
        code = self._serve(folder)
        answer = _read_json(folder / ANSWER_FILE)
        step = last_step(folder / STEP_FILE)
        if code is None:
            return {}, f"no end after {self._timeout_seconds:.0f} s in {step}"
        if not isinstance(answer, dict):
            return {}, f"crash in {step} ({obituary(code, self._last_words())})"
        error = error_of(answer)
        if error is not None:
            raise error
        if "failure" in answer:
            return {}, f"{step} failed: {answer['failure']}"
        return answer, ""

    def _serve(self, folder: Path) -> int | None:
        """Has a folder served; returns how that ended, None if it took too long."""
        self._log.truncate(0)
        self.start()
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = b""
        try:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(f"{folder}\n".encode())
                self._process.stdin.flush()
                ready, _, _ = select.select([self._process.stdout], [], [], self._timeout_seconds)
                if not ready:
                    self.close()
                    return None
                line = self._process.stdout.readline()
        except BaseException:  # interrupted: what it does is of no use to anyone
            self.close()
            raise
        if line:
            return int(line)
        process, self._process = self._process, None
        process.communicate()
        return process.returncode

    def _last_words(self) -> bytes:
        self._log.seek(0)
        return self._log.read()

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _read_json(path: Path) -> Any:
    """What a JSON file holds; None if it is not there, or damaged."""
    with contextlib.suppress(OSError, ValueError):
        return json.loads(path.read_text())
    return None
