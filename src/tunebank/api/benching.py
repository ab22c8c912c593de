"""An artifact timed against others."""

from __future__ import annotations

from collections.abc import Sequence

from tunebank.api.common import PathLike, Report, silent
from tunebank.api.planning import default_plan
from tunebank.contest import contestants
from tunebank.results import BenchResult
from tunebank.runtime.bench import bench, ratio
from tunebank.runtime.session import Session


def bench_artifact(
    path: PathLike,
    *,
    against: Sequence[str] = ("onnxruntime",),
    threads: int | None = None,
    rounds: int = 10,
    min_seconds: float = 2.0,
    report: Report = silent,
) -> BenchResult:
    """Times an artifact against others, in turns, on the same inputs and threads.

    Args:
        path: the artifact's folder.
        against: `onnxruntime` (on the file that the artifact was compiled from), `untuned`
            (that file compiled with default schedules), other artifacts, ONNX files (run by
            ONNX Runtime).
        threads: threads for all; None takes those of the artifact.
        rounds: turns that each gets.
        min_seconds: time that each is measured for at least.
        report: called with lines of text and `RoundProgress`.

    Raises:
        UsageError: a name that is none of these, or whose inputs differ.
    """
    session = Session(path, threads=threads)
    with contestants(session, against, default_plan=default_plan, report=report) as runs:
        samples = bench(runs, rounds=rounds, min_seconds=min_seconds, report=report)
    own, *others = samples
    return BenchResult(
        model=session.manifest.model,
        threads=session.threads,
        artifact=samples[own],
        against={name: samples[name] for name in others},
        speedups={name: ratio(samples[name], samples[own]) for name in others},
    )
