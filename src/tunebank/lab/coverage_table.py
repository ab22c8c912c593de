"""The outcomes of a survey as a table: cells for the terminal, and a Markdown file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunebank.lab.coverage import OK, Outcome

COLUMNS = (
    "model", "reader", "status", "max error", "kernels", "NHWC convs", "other convs",
    "import s", "canonicalise s", "front half s", "total s", "peak MiB",
)  # fmt: skip
NUMBERS = frozenset(COLUMNS) - {"model", "reader", "status"}
_UNKNOWN = "-"


def cells(outcome: Outcome, *, message_limit: int | None = None) -> tuple[str, ...]:
    """The cells of an outcome's row, in the order of `COLUMNS`."""
    result = outcome.result or {}
    half = result.get("front_half") or {}
    convolutions = half.get("convolutions")
    others = None if convolutions is None else _others(convolutions)
    return (
        outcome.model,
        outcome.reader,
        _status_text(outcome, message_limit),
        _error_text(result.get("verified") or {}),
        _number(len(result["kernels"]) if "kernels" in result else None, "d"),
        _number(None if convolutions is None else convolutions.get("NHWC", 0), "d"),
        _number(others, "d"),
        _number(half.get("import_seconds"), ".1f"),
        _number(half.get("canonicalise_seconds"), ".1f"),
        _number(half.get("total_seconds", result.get("prepare_seconds")), ".1f"),
        _number(outcome.wall_seconds or None, ".1f"),
        _number(_peak(outcome, half), ".0f"),
    )


def summary(outcomes: Sequence[Outcome]) -> str:
    """How many work, in a line."""
    return f"{sum(not outcome.failed for outcome in outcomes)} of {len(outcomes)} work"


def write_markdown(outcomes: Sequence[Outcome], path: Path) -> None:
    """Writes the table and the summary as a Markdown file."""
    rows = [COLUMNS, tuple("--:" if c in NUMBERS else "---" for c in COLUMNS)]
    rows += [tuple(map(_escaped, cells(outcome))) for outcome in outcomes]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    versions = sorted({f"tunebank {o.tunebank}, apache-tvm {o.tvm}" for o in outcomes})
    text = [f"{summary(outcomes)}. {'; '.join(versions)}.", "", *lines, ""]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(text))


def _status_text(outcome: Outcome, limit: int | None) -> str:
    half = (outcome.result or {}).get("front_half") or {}
    if half.get("warnings"):
        return f"{outcome.status}, by strategy {half.get('strategy')!r}"
    if outcome.status == OK or not outcome.message:
        return outcome.status
    message = outcome.message.removeprefix("error: ")
    if limit is not None and len(message) > limit:
        message = message[: limit - 1] + "…"
    return f"{outcome.status}: {message}"


def _error_text(verified: dict[str, Any]) -> str:
    """The largest error, relative to the largest value of its output where that is told."""
    if verified.get("max_rel_error") is not None:
        return f"{verified['max_rel_error']:.1e}"
    absolute = verified.get("max_abs_error")
    return _UNKNOWN if absolute is None else f"{absolute:.1e} abs"


def _others(convolutions: dict[str, int]) -> int:
    return sum(count for layout, count in convolutions.items() if layout != "NHWC")


def _peak(outcome: Outcome, half: dict[str, Any]) -> float | None:
    """The larger of what the reading process says of itself and what was sampled."""
    return max(outcome.peak_memory_mib, half.get("peak_memory_mib") or 0.0) or None


def _number(value: Any, form: str) -> str:
    return _UNKNOWN if value is None else f"{value:{form}}"


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")
