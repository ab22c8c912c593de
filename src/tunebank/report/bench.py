"""A comparison of timings as rows, from what `bench --json` prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class BenchRow:
    """What is shown of a contestant.

    Attributes:
        name: the contestant.
        median_ms: median latency, milliseconds.
        p90_ms: latency that nine runs of ten stay within, milliseconds.
        speedup: how many times faster than it the artifact is; None for the artifact itself.
        bar: its median relative to the slowest, 0 to 1.
    """

    name: str
    median_ms: float
    p90_ms: float
    speedup: float | None
    bar: float

    @property
    def verdict(self) -> str:
        """How the artifact compares: `1.25x faster`, `1.10x slower`, or "" for itself."""
        if self.speedup is None:
            return ""
        if self.speedup >= 1:
            return f"{self.speedup:.2f}x faster"
        return f"{1 / self.speedup:.2f}x slower" if self.speedup > 0 else "slower"


def bench_rows(result: Mapping[str, Any], *, name: str) -> list[BenchRow]:
    """Rows of a comparison: the artifact, which gets the name, then the others, fastest first."""
    contestants = [(name, result["latency_ms"], None)]
    others = sorted(result["against"].items(), key=lambda item: item[1]["latency_ms"]["median"])
    contestants += [(other, it["latency_ms"], it["speedup"]) for other, it in others]
    slowest = max(float(latency["median"]) for _, latency, _ in contestants)
    return [
        BenchRow(
            name=label,
            median_ms=float(latency["median"]),
            p90_ms=float(latency["p90"]),
            speedup=speedup,
            bar=float(latency["median"]) / slowest if slowest > 0 else 0.0,
        )
        for label, latency, speedup in contestants
    ]
