"""`tunebank.report`: a plan."""

from __future__ import annotations

from typing import Any

import pytest

from tunebank.report import plan_lines, plan_rows, print_plan


def result(**changes: Any) -> dict[str, Any]:
    kernel = {
        "name": "conv2d",
        "weight": 2,
        "gflop": 0.2,
        "match": "class",
        "source": "resnet18",
        "candidates": 9,
        "expected_us": 500.0,
    }
    plain = kernel | {"name": "mean", "match": "none", "source": "", "expected_us": None}
    return {
        "kernels": [kernel, plain],
        "covered_share": 0.987,
        "expected_ms": None,
        "suggested_seconds": 0.2,
    } | changes


def test_lines() -> None:
    text = "\n".join(plan_lines(result()))
    assert "kernels: 2, 1 with a donor (1 class)" in text
    assert "covered: 99% of the operations" in text
    assert "expected" not in text, "a sum with an unknown part is unknown"
    assert "--time-budget 1s" in text, "a budget of 0 would measure nothing"
    assert "expected: 1.50 ms" in "\n".join(plan_lines(result(expected_ms=1.5)))


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    print_plan(plan_rows(result()["kernels"]))
    _, first, second = capsys.readouterr().out.splitlines()
    assert first.split() == ["conv2d", "2", "0.200", "class", "resnet18", "9", "500"]
    assert second.split() == ["mean", "2", "0.200", "none", "(own)", "9", "-"]
