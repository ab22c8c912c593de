"""The outcomes of a survey as a table: cells for the terminal, and a Markdown file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunebank.lab.coverage import OK, Outcome

COLUMNS = (
    "model", "reader", "status", "over ONNX Runtime", "max error", "allowed", "kernels",
    "NHWC convs", "other convs", "read s", "canonicalise s", "import s", "front half s", "total s",
    "reader MiB", "peak MiB",
)  # fmt: skip
NUMBERS = frozenset(COLUMNS) - {"model", "reader", "status"}
_UNKNOWN = "-"
_BEST_STRATEGY = "full"  # `model.strategy.STRATEGIES[0]`, without importing TVM

_EXPLANATION = """# Models

Which networks compile, with what numbers and in how many seconds: `tunebank lab coverage`,
without search (`--time-budget 0`), with random weights.

- *reader*: from an ONNX file, or from a PyTorch program (`.pt2`), which becomes ONNX first; most
  of its *read s* is PyTorch's export, and importing PyTorch.
- *over ONNX Runtime*: how many times faster than it, both with as many threads, in interleaved
  turns; schedules come from the bank in the package, without the records of the same architecture.
- *max error*: the largest difference from ONNX Runtime on all inputs tried, relative to the
  largest value of that output; *allowed*: what rounding explains, by data types, lengths of sums
  and depth. A model may exceed it where ONNX Runtime, otherwise optimised, differs from itself
  as much.
- *convs*: convolutions by layout; *NHWC* are also those of volumes, in NDHWC.
- *front half s*: model file to kernels: read, canonicalise, import into TVM and lower, without
  importing libraries. *total s* is the whole command.
- *reader MiB*: the most memory that the reading process held, *peak MiB* all processes together.
"""


def cells(outcome: Outcome, *, message_limit: int | None = None) -> tuple[str, ...]:
    """The cells of an outcome's row, in the order of `COLUMNS`."""
    result = outcome.result or {}
    half = result.get("front_half") or {}
    verified = result.get("verified") or {}
    convolutions = half.get("convolutions")
    last, other = (None, None) if convolutions is None else _by_layout(convolutions)
    return (
        outcome.model,
        outcome.reader,
        _status_text(outcome, message_limit),
        _number(outcome.over_onnxruntime, ".2f"),
        _error_text(verified),
        _number(verified.get("tolerance"), ".1e"),
        _number(len(result["kernels"]) if "kernels" in result else None, "d"),
        _number(last, "d"),
        _number(other, "d"),
        _number(half.get("read_seconds"), ".1f"),
        _number(half.get("canonicalise_seconds"), ".1f"),
        _number(half.get("import_seconds"), ".1f"),
        _number(half.get("total_seconds", result.get("prepare_seconds")), ".1f"),
        _number(outcome.wall_seconds or None, ".1f"),
        _number(half.get("peak_memory_mib"), ".0f"),
        _number(_peak(outcome, half), ".0f"),
    )


def summary(outcomes: Sequence[Outcome]) -> str:
    """How many work, in a line."""
    return f"{sum(not outcome.failed for outcome in outcomes)} of {len(outcomes)} work"


def write_markdown(outcomes: Sequence[Outcome], path: Path) -> None:
    """Writes the table, what its columns mean, and the summary as a Markdown file."""
    rows = [COLUMNS, tuple("--:" if c in NUMBERS else "---" for c in COLUMNS)]
    rows += [tuple(map(_escaped, cells(outcome))) for outcome in outcomes]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    versions = sorted({f"tunebank {o.tunebank}, apache-tvm {o.tvm}" for o in outcomes})
    text = [_EXPLANATION, f"{summary(outcomes)}. {'; '.join(versions)}.", "", *lines, ""]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(text))


def _status_text(outcome: Outcome, limit: int | None) -> str:
    half = (outcome.result or {}).get("front_half") or {}
    if half.get("strategy", _BEST_STRATEGY) != _BEST_STRATEGY:
        return f"{outcome.status}, by strategy {half.get('strategy')!r}"
    if outcome.status == OK or not outcome.message:
        return outcome.status + _given_up(outcome)
    message = outcome.message.removeprefix("error: ")
    if limit is not None and len(message) > limit:
        message = message[: limit - 1] + "…"
    return f"{outcome.status}: {message}"


def _given_up(outcome: Outcome) -> str:
    """How many kernels got another schedule, since theirs failed in the compiled model."""
    kernels = (outcome.result or {}).get("kernels") or []
    count = sum(bool(kernel.get("given_up")) for kernel in kernels)
    return f", {count} with another schedule than chosen" if count else ""


def _error_text(verified: dict[str, Any]) -> str:
    """The largest error, relative to the largest value of its output where that is told."""
    if verified.get("max_rel_error") is not None:
        return f"{verified['max_rel_error']:.1e}"
    absolute = verified.get("max_abs_error")
    return _UNKNOWN if absolute is None else f"{absolute:.1e} abs"


def _by_layout(convolutions: dict[str, int]) -> tuple[int, int]:
    """How many are channels last, and how many are not."""
    last = sum(count for layout, count in convolutions.items() if layout.endswith("C"))
    return last, sum(convolutions.values()) - last


def _peak(outcome: Outcome, half: dict[str, Any]) -> float | None:
    """The larger of what the reading process says of itself and what was sampled."""
    return max(outcome.peak_memory_mib, half.get("peak_memory_mib") or 0.0) or None


def _number(value: Any, form: str) -> str:
    return _UNKNOWN if value is None else f"{value:{form}}"


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")
