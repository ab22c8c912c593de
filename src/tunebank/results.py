"""What the functions of `tunebank.api` return, and how it is written as JSON.

The keys are a contract: units are in their names, and `None` says that something was not
measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebank.runtime.manifest import (
    Function,
    KernelEntry,
    Latency,
    Manifest,
    VerificationResult,
)

if TYPE_CHECKING:
    from tunebank.model import FrontHalf
    from tunebank.runtime.bench import LatencySamples, Ratio
    from tunebank.runtime.profile import CallProfile, Profile
    from tunebank.search import Plan

_KERNEL_KEYS = (
    "name",
    "class",
    "weight",
    "gflop",
    "match",
    "source",
    "untuned_us",
    "latency_us",
    "candidates",
    "measured",
    "invalid",
    "given_up",
)


@dataclass(frozen=True)
class CompileResult:
    """What came of compiling a model.

    Attributes:
        path: the artifact's folder.
        manifest: what the artifact says of itself.
        plan: the schedules, and how they were found.
        front_half: how the model was read.
        warnings: what could not be done for this model.
        prepare_seconds: reading the model, splitting it into kernels.
        search_seconds: first candidate to last measurement.
        build_seconds: machine code, verification, timing of the whole model, writing.
        total_seconds: all of it.
    """

    path: Path
    manifest: Manifest
    plan: Plan
    front_half: FrontHalf
    warnings: tuple[str, ...]
    prepare_seconds: float
    search_seconds: float
    build_seconds: float
    total_seconds: float

    @property
    def latency_ms(self) -> Latency | None:
        """Latency of the finished artifact; None if it can't run on this machine."""
        return self.manifest.latency_ms

    def to_json(self) -> dict[str, Any]:
        """What `tunebank compile --json` prints."""
        latency = self.manifest.latency_ms
        return {
            "search_seconds": self.search_seconds,
            "prepare_seconds": self.prepare_seconds,
            "build_seconds": self.build_seconds,
            "total_seconds": self.total_seconds,
            "latency_ms": latency.model_dump() if latency else None,
            "verified": _verified_json(self.manifest.verified),
            "functions": [_function_json(one) for one in self.manifest.functions],
            "front_half": _front_half_json(self.front_half) | {"warnings": list(self.warnings)},
            "kernels": [_kernel_json(entry) for entry in self.manifest.kernels],
        }


@dataclass(frozen=True)
class PlanResult:
    """Which kernels of a model have donors.

    Attributes:
        model: the model's name.
        plan: the best-ranked schedules; nothing is measured.
        kernels: the kernels as `compile --json` gives them, heaviest first; `expected_us` is
            the latency at the rate that the donor reached on its own kernel, None unless it
            did so on this machine's like.
        covered_share: share of the model's operations in kernels with a donor, 0 to 1.
        suggested_seconds: search time in which every kernel's first candidates are measured.
    """

    model: str
    plan: Plan
    kernels: tuple[Mapping[str, Any], ...]
    covered_share: float
    suggested_seconds: float

    def to_json(self) -> dict[str, Any]:
        """What `tunebank plan --json` prints."""
        expected = [kernel["expected_us"] for kernel in self.kernels]
        weights = [kernel["weight"] for kernel in self.kernels]
        known = bool(expected) and None not in expected
        total_us = sum(w * e for w, e in zip(weights, expected, strict=True)) if known else None
        return {
            "model": self.model,
            "covered_share": self.covered_share,
            "expected_ms": total_us / 1e3 if total_us is not None else None,
            "suggested_seconds": self.suggested_seconds,
            "kernels": [dict(kernel) for kernel in self.kernels],
        }


@dataclass(frozen=True)
class TuneResult:
    """What came of auto-scheduling a model.

    Attributes:
        model: the model's name.
        source: name under which the records were deposited.
        measured: new measurements.
        prepare_seconds: reading the model, splitting it into kernels.
        search_seconds: the search.
    """

    model: str
    source: str
    measured: int
    prepare_seconds: float
    search_seconds: float

    def to_json(self) -> dict[str, Any]:
        """What `tunebank tune --json` prints."""
        return dict(vars(self))


@dataclass(frozen=True)
class BenchResult:
    """An artifact timed against others.

    Attributes:
        model: the artifact's model.
        threads: threads that everything ran on.
        artifact: the artifact's latencies.
        against: the others' latencies, by name.
        speedups: by name, how many times longer the other takes than the artifact.
    """

    model: str
    threads: int
    artifact: LatencySamples
    against: Mapping[str, LatencySamples]
    speedups: Mapping[str, Ratio]

    def to_json(self) -> dict[str, Any]:
        """What `tunebank bench --json` prints."""
        return {
            "model": self.model,
            "threads": self.threads,
            "runs": len(self.artifact.samples_ms),
            "latency_ms": _latency_json(self.artifact),
            "against": {
                name: {
                    "latency_ms": _latency_json(samples),
                    "speedup": self.speedups[name].median,
                    "speedup_low": self.speedups[name].low,
                    "speedup_high": self.speedups[name].high,
                }
                for name, samples in self.against.items()
            },
        }


@dataclass(frozen=True)
class ProfileResult:
    """Where an artifact's time goes.

    Attributes:
        manifest: what the artifact says of itself.
        threads: threads that it ran on.
        peak_gflop_per_s: what the machine can do, measured.
        profile: the times.
    """

    manifest: Manifest
    threads: int
    peak_gflop_per_s: float
    profile: Profile

    def to_json(self) -> dict[str, Any]:
        """What `tunebank bench --profile --json` prints."""
        entries = {entry.symbol: entry for entry in self.manifest.kernels}
        return {
            "model": self.manifest.model,
            "threads": self.threads,
            "run_us": self.profile.run_us,
            "between_us": self.profile.between_us,
            "peak_gflop_per_s": self.peak_gflop_per_s,
            "kernels": [
                _profile_json(program, entries.get(program.symbol))
                for program in self.profile.programs
            ],
        }


def _profile_json(program: CallProfile, entry: KernelEntry | None) -> dict[str, Any]:
    """One program; of one that is no kernel of ours the operations are not known."""
    each_us = program.total_us / program.calls
    return {
        "name": entry.name if entry else program.symbol,
        "calls": program.calls,
        "total_us": program.total_us,
        "gflop": entry.gflop if entry else None,
        "gflop_per_s": entry.gflop / each_us * 1e6 if entry and each_us else None,
        "alone_us": entry.latency_us if entry else None,
    }


def _verified_json(verified: VerificationResult | None) -> dict[str, Any] | None:
    """`passed` is None where the comparison could not have failed."""
    if verified is None:
        return None
    passed = verified.passed if verified.conclusive else None
    names = ("max_abs_error", "max_rel_error", "tolerance", "worst")
    return {"passed": passed} | {name: getattr(verified, name) for name in names}


def _latency_json(samples: LatencySamples) -> dict[str, float]:
    return {"median": samples.median_ms, "p90": samples.p90_ms}


def _kernel_json(entry: Any) -> dict[str, Any]:
    data = entry.model_dump(mode="json", by_alias=True)
    return {key: data[key] for key in _KERNEL_KEYS}


def _function_json(function: Function) -> dict[str, Any]:
    latency = function.latency_ms
    return {
        "inputs": {spec.name: list(spec.shape) for spec in function.inputs},
        "outputs": {spec.name: list(spec.shape) for spec in function.outputs},
        "latency_ms": latency.model_dump() if latency else None,
    }


def _front_half_json(found: FrontHalf) -> dict[str, Any]:
    seconds = found.seconds
    return {
        "read_seconds": seconds.read,
        "canonicalise_seconds": seconds.canonicalise,
        "import_seconds": seconds.graph,
        "total_seconds": seconds.read + seconds.canonicalise + seconds.graph,
        "start_seconds": seconds.start,
        "peak_memory_mib": found.peak_bytes / 2**20,
        "strategy": found.strategy,
        "convolutions": dict(found.convolutions),
    }
