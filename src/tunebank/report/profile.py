"""A profile as rows, one per kernel, from what `bench --profile --json` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PROFILE_COLUMNS = (
    "kernel", "calls", "us", "share", "GFLOP", "GFLOP/s", "of peak", "us each", "alone",
)  # fmt: skip
_BETWEEN = "(between kernels)"
_UNKNOWN = "-"


def profile_rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The cells: the kernels, those that take the most time first, and what lies between them.

    `alone` is the latency that the search measured, the kernel by itself.
    """
    run_us, peak = float(result["run_us"]), float(result["peak_gflop_per_s"])
    rows = [_cells(kernel, run_us, peak) for kernel in result["kernels"]]
    between_us = float(result["between_us"])
    blank = (_UNKNOWN,) * 5
    rows.append((_BETWEEN, _UNKNOWN, f"{between_us:.0f}", f"{between_us / run_us:.1%}", *blank))
    return rows


def _cells(kernel: Mapping[str, Any], run_us: float, peak: float) -> tuple[str, ...]:
    rate, gflop = kernel["gflop_per_s"], kernel["gflop"]
    total_us, calls = float(kernel["total_us"]), int(kernel["calls"])
    return (
        str(kernel["name"]),
        str(calls),
        f"{total_us:.0f}",
        f"{total_us / run_us:.1%}",
        _UNKNOWN if gflop is None else f"{gflop:.3f}",
        _UNKNOWN if rate is None else f"{rate:.0f}",
        _UNKNOWN if rate is None else f"{rate / peak:.0%}",
        f"{total_us / calls:.1f}",
        _UNKNOWN if kernel["alone_us"] is None else f"{kernel['alone_us']:.1f}",
    )
