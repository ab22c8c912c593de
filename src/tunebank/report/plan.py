"""A plan as rows, one per kernel, and as a few lines; from what `plan --json` prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tunebank.report.kernels import donors_text


@dataclass(frozen=True)
class PlanRow:
    """What is shown of a kernel before anything is measured.

    Attributes:
        name: its operators.
        weight: calls per run of the model.
        gflop: billions of floating-point operations of one call.
        match: how its nearest donor relates to it; `none` without one.
        source: model that the donor was tuned for; "" without one.
        candidates: candidates that its donors give.
        expected_us: latency at the rate of the donor; None if that is not known here.
    """

    name: str
    weight: int
    gflop: float
    match: str
    source: str
    candidates: int
    expected_us: float | None


def plan_rows(kernels: Iterable[Mapping[str, Any]]) -> list[PlanRow]:
    """Rows of the entries of `kernels`, in their order."""
    return [
        PlanRow(
            name=str(entry["name"]),
            weight=int(entry["weight"]),
            gflop=float(entry["gflop"]),
            match=str(entry["match"]),
            source=str(entry.get("source") or ""),
            candidates=int(entry["candidates"]),
            expected_us=entry.get("expected_us"),
        )
        for entry in kernels
    ]


def plan_lines(result: Mapping[str, Any]) -> list[str]:
    """A plan in a few lines."""
    lines = [
        f"kernels: {donors_text(result['kernels'])}",
        f"covered: {result['covered_share']:.0%} of the operations are in kernels with a donor",
    ]
    expected = result.get("expected_ms")
    if expected is not None:
        lines.append(f"expected: {expected:.2f} ms summed over kernels, at the donors' rates")
    seconds = max(1, round(result["suggested_seconds"]))
    lines.append(f"suggested: tunebank compile --time-budget {seconds}s, or more to refine")
    return lines
