"""A compilation as rows, one per kernel, and as a few lines.

Both are made from what `compile --json` prints, so that a saved result can be shown again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_LEVELS = ("exact", "class", "anchor")


@dataclass(frozen=True)
class KernelRow:
    """What is shown of a kernel.

    Attributes:
        name: its operators.
        weight: calls per run of the model.
        gflop: billions of floating-point operations of one call.
        match: how its donor relates to it; `none` without one.
        source: model that the donor was tuned for; "" without one.
        untuned_us: latency under the default schedule; None if not measured.
        latency_us: latency under the chosen one; None if not measured.
        share: part of the summed latency of all kernels that it takes, 0 to 1; None unless
            every kernel was measured.
        candidates: candidates that its donors gave.
        measured: how many of them were measured.
        invalid: how many were refused as illegal.
    """

    name: str
    weight: int
    gflop: float
    match: str
    source: str
    untuned_us: float | None
    latency_us: float | None
    share: float | None
    candidates: int
    measured: int
    invalid: int

    @property
    def speedup(self) -> float | None:
        """How many times faster than the default schedule; None if either is unknown."""
        if not self.latency_us or self.untuned_us is None:
            return None
        return self.untuned_us / self.latency_us

    @property
    def gflop_per_s(self) -> float | None:
        """Rate in billions of floating-point operations per second."""
        return self.gflop / self.latency_us * 1e6 if self.latency_us else None


def kernel_rows(kernels: Iterable[Mapping[str, Any]]) -> list[KernelRow]:
    """Rows of the entries of `kernels`, those that take the most time first."""
    entries = list(kernels)
    times = [_weighted_us(entry, "latency_us") for entry in entries]
    total = None if None in times else sum(time or 0.0 for time in times)
    rows = [
        (_row(entry, time / total if total and time is not None else None), time or 0.0)
        for entry, time in zip(entries, times, strict=True)
    ]
    rows.sort(key=lambda pair: (-pair[1], -pair[0].gflop * pair[0].weight, pair[0].name))
    return [row for row, _ in rows]


def summary_lines(result: Mapping[str, Any]) -> list[str]:
    """A compilation in a few lines, from what `compile --json` prints."""
    lines = [_donors_line(result["kernels"])]
    lines.extend(_kernels_line(result["kernels"]))
    latency = result.get("latency_ms") or {}
    if latency.get("median") is not None:
        lines.append(f"model: {latency['median']:.2f} ms median, {latency['p90']:.2f} ms p90")
    lines.append(_verified_line(result.get("verified")))
    stages = ("prepare", "search", "build", "total")
    seconds = [(name, result.get(f"{name}_seconds")) for name in stages]
    lines.append(
        "time: "
        + ", ".join(f"{name} {value:.1f} s" for name, value in seconds if value is not None)
    )
    return lines


def donors_text(kernels: Iterable[Mapping[str, Any]]) -> str:
    """How many kernels there are, and how many have donors: `9, 7 with a donor (7 class)`."""
    entries = list(kernels)
    levels = Counter(str(entry["match"]) for entry in entries)
    with_donor = sum(levels[level] for level in _LEVELS)
    parts = ", ".join(f"{levels[level]} {level}" for level in _LEVELS if levels[level])
    return f"{len(entries)}, {with_donor} with a donor{f' ({parts})' if parts else ''}"


def _row(entry: Mapping[str, Any], share: float | None) -> KernelRow:
    return KernelRow(
        name=str(entry["name"]),
        weight=int(entry["weight"]),
        gflop=float(entry["gflop"]),
        match=str(entry["match"]),
        source=str(entry.get("source") or ""),
        untuned_us=entry.get("untuned_us"),
        latency_us=entry.get("latency_us"),
        share=share,
        candidates=int(entry.get("candidates", 0)),
        measured=int(entry.get("measured", 0)),
        invalid=int(entry.get("invalid", 0)),
    )


def _weighted_us(entry: Mapping[str, Any], key: str) -> float | None:
    value = entry.get(key)
    return None if value is None else float(value) * int(entry["weight"])


def _donors_line(kernels: Iterable[Mapping[str, Any]]) -> str:
    entries = list(kernels)
    sums = {
        name: sum(int(entry.get(name, 0)) for entry in entries)
        for name in ("candidates", "measured", "invalid")
    }
    return (
        f"kernels: {donors_text(entries)}; {sums['candidates']} candidates, "
        f"{sums['measured']} measured, {sums['invalid']} illegal"
    )


def _kernels_line(kernels: Iterable[Mapping[str, Any]]) -> list[str]:
    """The sum over the kernels under both schedules, where all of both were measured."""
    entries = list(kernels)
    chosen = [_weighted_us(entry, "latency_us") for entry in entries]
    default = [_weighted_us(entry, "untuned_us") for entry in entries]
    if not entries or None in chosen or None in default:
        return []
    before, after = sum(t or 0.0 for t in default) / 1e3, sum(t or 0.0 for t in chosen) / 1e3
    ratio = f", {before / after:.2f}x" if after else ""
    return [f"summed over kernels: default {before:.2f} ms, chosen {after:.2f} ms{ratio}"]


def _verified_line(verified: Mapping[str, Any] | None) -> str:
    if not verified:
        return "verified: no"
    if verified["passed"] is None:
        return "verified: inconclusive, the model's outputs don't follow its inputs"
    outcome = "agrees with ONNX Runtime" if verified["passed"] else "DIFFERS from ONNX Runtime"
    return f"verified: {outcome}, largest absolute error {verified['max_abs_error']:.2g}"
