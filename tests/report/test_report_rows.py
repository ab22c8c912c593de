"""`tunebank.report`: rows and lines of results."""

from __future__ import annotations

from typing import Any

import pytest

from tunebank.report import bench_rows, kernel_rows, summary_lines


def entry(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "class": "c",
        "weight": 1,
        "gflop": 0.1,
        "match": "class",
        "source": "resnet18",
        "untuned_us": 200.0,
        "latency_us": 100.0,
        "candidates": 6,
        "measured": 4,
        "invalid": 1,
    } | changes


def test_rows_go_by_time_taken_and_share_the_model() -> None:
    rows = kernel_rows([entry("small"), entry("often", weight=3), entry("none", latency_us=0.5)])
    assert [row.name for row in rows] == ["often", "small", "none"]
    assert sum(row.share or 0 for row in rows) == pytest.approx(1.0)
    assert rows[0].share == pytest.approx(300 / 400.5)
    assert rows[0].speedup == 2.0
    assert rows[0].gflop_per_s == pytest.approx(1000.0)


def test_what_was_not_measured_is_not_made_up() -> None:
    rows = kernel_rows([entry("a", latency_us=None, untuned_us=None), entry("b")])
    assert [row.share for row in rows] == [None, None], "a share of an unknown whole"
    assert rows[1].speedup is None
    assert rows[1].gflop_per_s is None


def test_no_kernels() -> None:
    assert kernel_rows([]) == []


def result(**changes: Any) -> dict[str, Any]:
    return {
        "kernels": [entry("a"), entry("b", match="none", source="", weight=2)],
        "latency_ms": {"median": 0.31, "p90": 0.35},
        "verified": {"passed": True, "max_abs_error": 1.5e-6},
        "prepare_seconds": 1.0,
        "search_seconds": 2.0,
        "build_seconds": 3.0,
        "total_seconds": 6.5,
    } | changes


def test_summary() -> None:
    text = "\n".join(summary_lines(result()))
    assert "2, 1 with a donor (1 class); 12 candidates, 8 measured, 2 illegal" in text
    assert "default 0.60 ms, chosen 0.30 ms, 2.00x" in text
    assert "0.31 ms median" in text
    assert "agrees with ONNX Runtime, largest absolute error 1.5e-06" in text
    assert "search 2.0 s" in text


def test_summary_claims_nothing_that_is_not_known() -> None:
    lines = summary_lines(
        result(latency_ms=None, verified=None, kernels=[entry("a", untuned_us=None)])
    )
    text = "\n".join(lines)
    assert "verified: no" in text
    assert "chosen" not in text
    assert "median" not in text


def test_a_failed_verification_is_loud() -> None:
    lines = summary_lines(result(verified={"passed": False, "max_abs_error": 3.0}))
    assert any("DIFFERS" in line for line in lines)


def contest(ours: float, **others: float) -> dict[str, Any]:
    return {
        "latency_ms": {"median": ours, "p90": ours * 1.1},
        "against": {
            name: {"latency_ms": {"median": ms, "p90": ms * 1.2}, "speedup": ms / ours}
            for name, ms in others.items()
        },
    }


def test_bench_rows() -> None:
    rows = bench_rows(contest(10.0, slow=20.0, quick=8.0), name="mine")
    assert [row.name for row in rows] == ["mine", "quick", "slow"]
    assert [row.verdict for row in rows] == ["", "1.25x slower", "2.00x faster"]
    assert [row.bar for row in rows] == [0.5, 0.4, 1.0]


def test_bench_alone() -> None:
    assert bench_rows(contest(10.0), name="mine")[0].bar == 1.0
