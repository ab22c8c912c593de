"""The reading process seen from outside: started, asked, its crashes told and survived."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from tunebank.errors import ModelError
from tunebank.model.notes import last_step
from tunebank.model.reader import ANSWER_FILE, REQUEST_FILE, STEP_FILE, Request, error_of
from tunebank.model.strategy import STRATEGIES

TIMEOUT_SECONDS = 900.0
_LOG_BYTES = 4000


@dataclass(frozen=True)
class Answer:
    """What the reading process found.

    Attributes:
        data: its answer; see `reader.read`.
        strategy: name of the strategy that worked.
        warnings: what failed before it.
    """

    data: dict[str, Any]
    strategy: str
    warnings: tuple[str, ...]


class Reader:
    """A process that reads one model. Started early, it is ready when the request comes.

    Use it as a context manager: the process ends with the block.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the process and returns at once."""
        if self._process is None:
            environment = {**os.environ, "PYTHONPATH": import_path()}
            self._process = subprocess.Popen(  # noqa: S603  this very program
                [sys.executable, "-c", "from tunebank.model.reader import serve; serve()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=environment,
            )

    def read(
        self, request: Request, folder: Path, *, report: Callable[[str], None] = lambda text: None
    ) -> Answer:
        """Reads a model into a folder, by the first strategy that TVM survives.

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
        for index in range(request.strategy, len(STRATEGIES)):
            _empty(folder)
            data, failure = self._attempt(replace(request, strategy=index), folder)
            if not failure:
                return Answer(data, STRATEGIES[index].name, tuple(failures))
            failures.append(f"{failure} (strategy: {STRATEGIES[index].name})")
            report(f"{request.path}: {failures[-1]}; trying another way")
        raise ModelError(f"{request.path}: TVM can't compile it: {'; '.join(failures)}")

    def close(self) -> None:
        """Ends the process."""
        if self._process is None:
            return
        process, self._process = self._process, None
        process.kill()
        process.communicate()

    def _attempt(self, request: Request, folder: Path) -> tuple[dict[str, Any], str]:
        """The answer; or what failed and where."""
        (folder / REQUEST_FILE).write_text(json.dumps(asdict(request)))
        self.start()
        assert self._process is not None
        process, self._process = self._process, None  # the next attempt takes a new one
        try:
            _, log = process.communicate(f"{folder}\n".encode(), timeout=TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return {}, f"no end after {TIMEOUT_SECONDS:.0f} s in {last_step(folder / STEP_FILE)}"
        except BaseException:
            process.kill()
            process.communicate()
            raise
        answer = _read_json(folder / ANSWER_FILE)
        step = last_step(folder / STEP_FILE)
        if answer is None:
            return {}, f"{_end_of(process.returncode, log)} in {step}"
        error = error_of(answer)
        if error is not None:
            raise error
        if "failure" in answer:
            return {}, f"{step} failed: {answer['failure']}"
        return answer, ""

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def import_path() -> str:
    """PYTHONPATH for a process of ours: its tunebank must be this one."""
    package_root = str(Path(__file__).resolve().parents[2])
    inherited = os.environ.get("PYTHONPATH")
    return os.pathsep.join([package_root, inherited] if inherited else [package_root])


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def _read_json(path: Path) -> dict[str, Any] | None:
    with contextlib.suppress(OSError, ValueError):
        data = json.loads(path.read_text())
        return data if isinstance(data, dict) else None
    return None


def _end_of(code: int, log: bytes) -> str:
    """How a process that left no answer ended, with the last line that it wrote."""
    lines = log[-_LOG_BYTES:].decode(errors="replace").strip().splitlines()
    last = f" ({lines[-1].strip()[:200]})" if lines else ""
    if code >= 0:
        return f"a failure{last}"
    with contextlib.suppress(ValueError):
        return f"a crash, {signal.Signals(-code).name},{last}"
    return f"a crash, signal {-code},{last}"
