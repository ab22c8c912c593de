"""Results of the experiments as lines of JSON: what was measured, on what, by which versions.

A line is whole or it is skipped, so that a run that was killed leaves nothing that misleads.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 1

REUSE, SCRATCH, STOCK = "reuse", "scratch", "stock"
"""The experiments: reuse with other models' records; auto-scheduling from scratch, on our workers,
beside it; MetaSchedule as it comes."""


@dataclass(frozen=True)
class KernelOutcome:
    """What a search came to for one kernel.

    Attributes:
        key, class_key: identities.
        name: name to show.
        weight: calls per run of the model.
        gflop: billions of floating-point operations of one call.
        match: level of its nearest donor; `none` without one.
        source: model that the chosen schedule was tuned for; "" for the default.
        untuned_us: latency under the default schedule; None if not measured.
        latency_us: latency under the chosen one; None if not measured.
        donors_us: by donor model, the latency of its fastest candidate.
    """

    key: str
    class_key: str
    name: str
    weight: int
    gflop: float
    match: str
    source: str
    untuned_us: float | None
    latency_us: float | None
    donors_us: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SearchOutcome:
    """What a search came to.

    Attributes:
        mode: whose records served: `one`, `mixed`, `length`; `direct`, as `mixed` but by schedules
            alone, without Winograd's filtering and joint kernels; or `scratch` and `stock`,
            nobody's.
        budget_seconds: search time allowed.
        search_seconds: search time used, builds included.
        measured: candidates measured.
        candidates: candidates that donors gave.
        invalid: candidates refused before any build.
        failed: candidates that failed to build or run, wrong ones included.
        wrong: candidates whose numbers differ from the reference.
        without_donor: kernels with a reduction and no donor.
        slower: kernels whose chosen schedule is slower alone than their default; it was then faster
            in the model.
        kernels_us: sum over kernels of latency times weight; None unless all were measured.
        kernels: each kernel.
    """

    mode: str
    budget_seconds: float
    search_seconds: float
    measured: int
    candidates: int
    invalid: int
    failed: int
    wrong: int
    without_donor: int
    slower: int
    kernels_us: float | None
    kernels: tuple[KernelOutcome, ...] = ()


@dataclass(frozen=True)
class TimelinePoint:
    """Where auto-scheduling from scratch was at a time.

    Attributes:
        seconds: search time, builds included.
        trials: trials by then.
        kernels_us: sum over kernels of the best latency so far times weight, default schedules
            included.
        alone_us: the same of its own trials alone; kernels that it has not reached count with their
            default schedule. None before it has reached those that take most of the time.
    """

    seconds: float
    trials: int
    kernels_us: float
    alone_us: float | None = None


@dataclass(frozen=True)
class Row:
    """One repeat of one experiment on one model.

    Attributes:
        experiment: `reuse`, `scratch` or `stock`.
        model: the model.
        repeat: counted from 0.
        at: when, ISO 8601, UTC.
        device: fingerprint, target, threads, CPU.
        versions: by package.
        bank: the donors: records and models that were seen, and the models that were hidden.
        donor_model: the one donor of mode `one`; "" if there is none.
        trials: of full auto-scheduling: in all, and the least of a kernel that takes time.
        searches: the searches.
        timings_ms: by contestant, for each round its latencies in milliseconds, all of one
            interleaved run; the same program under two names is timed once.
        errors: by contestant, the largest error relative to the largest value of ONNX Runtime's.
        failures: by contestant that could not run, why.
        timeline: of auto-scheduling from scratch.
        match_seconds: search time after which it reached the kernels' time of reuse; None if it
            did not within the cap.
        cap_seconds: how long auto-scheduling from scratch, or stock MetaSchedule, was let run.
    """

    experiment: str
    model: str
    repeat: int
    at: str
    device: Mapping[str, Any]
    versions: Mapping[str, str]
    bank: Mapping[str, Any]
    donor_model: str
    trials: Mapping[str, int]
    searches: tuple[SearchOutcome, ...]
    timings_ms: Mapping[str, Sequence[Sequence[float]]]
    errors: Mapping[str, float]
    failures: Mapping[str, str] = field(default_factory=dict)
    timeline: tuple[TimelinePoint, ...] = ()
    match_seconds: float | None = None
    cap_seconds: float | None = None
    schema_version: int = SCHEMA_VERSION

    @property
    def key(self) -> tuple[str, str, int, str]:
        """What makes a row the same as another: it is not measured again."""
        return self.experiment, self.model, self.repeat, self.versions.get("tunebank", "")


def append_row(path: Path, row: Row) -> None:
    """Adds a line to a file of results."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(_rounded(asdict(row)), separators=(",", ":")) + "\n")


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file in order; lines that are none, such as one cut off, are skipped."""
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        try:
            data = json.loads(line)
            if data.get("schema_version") == SCHEMA_VERSION:
                yield _row(data)
        except (AttributeError, KeyError, TypeError, ValueError):
            continue


def latest_rows(path: Path) -> list[Row]:
    """Of each experiment, model and repeat the last row that was written."""
    return list({(row.experiment, row.model, row.repeat): row for row in read_rows(path)}.values())


def _row(data: dict[str, Any]) -> Row:
    data["searches"] = tuple(
        SearchOutcome(**{**one, "kernels": tuple(KernelOutcome(**k) for k in one["kernels"])})
        for one in data["searches"]
    )
    data["timeline"] = tuple(TimelinePoint(**point) for point in data["timeline"])
    return Row(**data)


def _rounded(value: Any) -> Any:
    """Floats to six digits: more is noise, and lines grow long."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return value
