"""Which networks compile, through which reader, and with the right numbers.

Each is compiled by the command line, without search, in a process of its own with a bank of its
own: what is measured is what a user meets, and a crash or a hang is a result like any other.
Outcomes are lines of JSON. A pair that has one for the same versions and the same file is not run
again.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tunebank._version import __version__
from tunebank.errors import MissingExtraError, TunebankError
from tunebank.lab.architectures import Entry, model_file
from tunebank.lab.commands import Ended, run_tunebank
from tunebank.lab.zoo import same_architecture

OK, WRONG, INCONCLUSIVE = "ok", "wrong numbers", "inconclusive"
ERROR, CRASHED, TIMEOUT, NO_FILE = "error", "crashed", "timeout", "no file"


@dataclass(frozen=True)
class Pair:
    """A network, and the reader that it goes through."""

    entry: Entry
    reader: str


@dataclass(frozen=True)
class Outcome:
    """What came of compiling a network.

    Attributes:
        model: the network's name.
        reader: `onnx` or `torch`.
        status: `ok`, `wrong numbers`, `inconclusive` (compiled, but comparing proves nothing),
            `error`, `crashed`, `timeout` or `no file`.
        message: the error's line; empty if there is none.
        file_sha256: digest of the model file; empty without one.
        tunebank, tvm: the versions.
        wall_seconds: of the whole command.
        peak_memory_mib: of all its processes together, sampled; so a lower bound.
        result: what `compile --json` printed; None unless it did.
        over_onnxruntime: how many times faster than ONNX Runtime it runs; None if not timed.
    """

    model: str
    reader: str
    status: str
    message: str
    file_sha256: str
    tunebank: str
    tvm: str
    wall_seconds: float
    peak_memory_mib: float
    result: dict[str, Any] | None
    over_onnxruntime: float | None = None

    @property
    def failed(self) -> bool:
        """Whether it doesn't work."""
        return self.status != OK


@dataclass(frozen=True)
class CoverageSettings:
    """How a survey is made.

    Attributes:
        cache: folder of the model files; they are built there once.
        results: file of the outcomes, a line of JSON each.
        time_budget_seconds: search time of each compilation; 0 measures nothing.
        timeout_seconds: after which a compilation is ended.
        bench: time each beside ONNX Runtime; records of its architecture are hidden then.
        again: run what has an outcome already.
        retry: run what has an outcome already that is a failure.
    """

    cache: Path
    results: Path
    time_budget_seconds: float = 0.0
    timeout_seconds: float = 300.0
    bench: bool = False
    again: bool = False
    retry: bool = False


@dataclass(frozen=True)
class CoverageProgress:
    """Where a survey is."""

    doing: str
    finished: int
    total: int
    left_seconds: float | None


def survey(
    pairs: Sequence[Pair],
    settings: CoverageSettings,
    report: Callable[[CoverageProgress], None] = lambda progress: None,
) -> list[Outcome]:
    """Compiles each pair, unless its outcome is known; returns all outcomes in order.

    Raises:
        MissingExtraError: PyTorch or transformers is not installed, and is needed.
    """
    settings.results.parent.mkdir(parents=True, exist_ok=True)
    known = {} if settings.again else _known(settings.results)
    if settings.retry:
        known = {key: outcome for key, outcome in known.items() if outcome.status == OK}
    outcomes: list[Outcome] = []
    ran, start = 0, time.monotonic()
    for index, pair in enumerate(pairs):
        seconds_each = (time.monotonic() - start) / ran if ran else None
        left = None if seconds_each is None else seconds_each * _new_ones(pairs[index:], known)
        doing = f"{pair.entry.name} ({pair.reader})"
        report(CoverageProgress(doing, index, len(pairs), left))
        outcome, new = _outcome_of(pair, settings, known)
        if new:
            ran += 1
            with settings.results.open("a") as file:
                file.write(json.dumps(asdict(outcome)) + "\n")
        outcomes.append(outcome)
    return outcomes


def _new_ones(pairs: Sequence[Pair], known: dict[tuple[str, ...], Outcome]) -> int:
    """How many of the pairs have no outcome yet, unless their files have changed."""
    seen = {(outcome.model, outcome.reader) for outcome in known.values()}
    return sum((pair.entry.name, pair.reader) not in seen for pair in pairs)


def pairs_of(entries: Sequence[Entry], readers: Sequence[str]) -> list[Pair]:
    """The networks with the readers that there are files for, network by network."""
    return [Pair(e, reader) for e in entries for reader in readers if reader in e.formats]


def read_outcomes(path: Path) -> Iterator[Outcome]:
    """The outcomes in a file; lines that are none, such as one that was cut off, are skipped."""
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        try:
            yield Outcome(**json.loads(line))
        except (TypeError, ValueError):
            continue


def _known(path: Path) -> dict[tuple[str, ...], Outcome]:
    return {_key(outcome): outcome for outcome in read_outcomes(path)}


def _key(outcome: Outcome) -> tuple[str, ...]:
    return (
        outcome.model, outcome.reader, outcome.file_sha256, outcome.tunebank, outcome.tvm,
    )  # fmt: skip


def _outcome_of(
    pair: Pair, settings: CoverageSettings, known: dict[tuple[str, ...], Outcome]
) -> tuple[Outcome, bool]:
    """The outcome of a pair, and whether it is new."""
    blank = Outcome(
        model=pair.entry.name,
        reader=pair.reader,
        status=NO_FILE,
        message="",
        file_sha256="",
        tunebank=__version__,
        tvm=version("apache-tvm"),
        wall_seconds=0.0,
        peak_memory_mib=0.0,
        result=None,
    )
    try:
        path = model_file(pair.entry, pair.reader, settings.cache)
    except MissingExtraError:
        raise
    except TunebankError as error:
        return _with(blank, message=str(error)), True
    blank = _with(blank, file_sha256=_digest(path))
    if _key(blank) in known:
        return known[_key(blank)], False
    return _compiled(blank, path, settings), True


def _compiled(blank: Outcome, path: Path, settings: CoverageSettings) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="tunebank-") as folder:
        artifact = f"{folder}/artifact"
        arguments = [
            "compile", str(path), "-o", artifact, "--json",
            "--bank", f"{folder}/bank.db", "--time-budget", f"{settings.time_budget_seconds}s",
        ]  # fmt: skip
        for name in sorted(same_architecture(blank.model)) if settings.bench else ():
            arguments += ["--exclude-source", name]
        ended = run_tunebank(arguments, timeout_seconds=settings.timeout_seconds)
        timed = settings.bench and ended.code == 0
        over_onnxruntime = _benched(artifact, settings) if timed else None
    if ended.code == MissingExtraError.exit_code:
        raise MissingExtraError(_last_line(ended).removeprefix("error: "))
    result = _result(ended)
    status = _status(ended, result)
    return _with(
        blank,
        status=status,
        message="" if status == OK else _last_line(ended).replace(f"{path}: ", ""),
        wall_seconds=ended.seconds,
        peak_memory_mib=ended.peak_memory_mib,
        result=result,
        over_onnxruntime=over_onnxruntime,
    )


def _benched(artifact: str, settings: CoverageSettings) -> float | None:
    """How many times faster than ONNX Runtime an artifact runs; None if that can't be told."""
    arguments = ["bench", artifact, "--against", "onnxruntime", "--json"]
    result = _result(run_tunebank(arguments, timeout_seconds=settings.timeout_seconds))
    return float(result["against"]["onnxruntime"]["speedup"]) if result else None


def _status(ended: Ended, result: dict[str, Any] | None) -> str:
    if ended.code is None:
        return TIMEOUT
    if ended.code < 0:
        return CRASHED
    if ended.code == 3:
        return WRONG
    if ended.code != 0 or result is None:
        return ERROR
    verified = result.get("verified") or {}
    return OK if verified.get("passed") else INCONCLUSIVE


def _result(ended: Ended) -> dict[str, Any] | None:
    try:
        data = json.loads(ended.output)
    except ValueError:
        return None
    return data if ended.code == 0 and isinstance(data, dict) else None


def _last_line(ended: Ended) -> str:
    """The error; or the last thing that was said before the end."""
    lines = [line.strip() for line in ended.log.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    return (errors or lines or [""])[-1][:1000]


def _with(outcome: Outcome, **changes: Any) -> Outcome:
    return Outcome(**{**vars(outcome), **changes})


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
