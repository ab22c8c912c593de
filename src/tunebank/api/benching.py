"""An artifact timed: against others, or kernel by kernel."""

from __future__ import annotations

from collections.abc import Sequence

from tunebank.api.common import PathLike, Report, silent
from tunebank.api.planning import default_plan
from tunebank.contest import contestants
from tunebank.device import detect_device, peak_gflop_per_s
from tunebank.results import BenchResult, ProfileResult
from tunebank.runtime.bench import bench, ratio
from tunebank.runtime.feed import random_feed
from tunebank.runtime.profile import profile
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


def profile_artifact(
    path: PathLike, *, threads: int | None = None, report: Report = silent
) -> ProfileResult:
    """Tells where an artifact's time goes: each kernel timed in the model.

    Args:
        path: the artifact's folder.
        threads: threads to run on; None takes those of the artifact.
        report: called with a line of text.
    """
    session = Session(path, threads=threads)
    manifest = session.manifest
    report("measuring what this machine can do")
    peak = peak_gflop_per_s(detect_device(manifest.target, threads=session.threads))
    report("profiling")
    return ProfileResult(
        manifest=manifest,
        threads=session.threads,
        peak_gflop_per_s=peak,
        profile=profile(session, random_feed(manifest.functions[0].inputs)),
    )
