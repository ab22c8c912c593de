"""Tables of `tunebank.report`, as they are printed off a terminal."""

from __future__ import annotations

import pytest
from test_report_rows import contest, entry

from tunebank.report import bench_rows, kernel_rows, print_bench, print_kernels, print_table

LONG = "conv2d_" * 60 + "end"


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> pytest.CaptureFixture[str]:
    return capsys


def test_nothing_is_cut_and_nothing_is_markup(printed: pytest.CaptureFixture[str]) -> None:
    print_table(("name", "n"), [(LONG, "1"), ("[bold]x[/bold] :smile:", "2")], numbers=["n"])
    lines = printed.readouterr().out.splitlines()
    assert len(lines) == 3
    assert LONG in lines[1]
    assert "[bold]x[/bold] :smile:" in lines[2]
    assert all(line == line.rstrip() for line in lines)


def test_no_colour_off_a_terminal(printed: pytest.CaptureFixture[str]) -> None:
    print_kernels(kernel_rows([entry("a"), entry("b", match="exact")]))
    assert "\x1b" not in printed.readouterr().out


def test_kernels(printed: pytest.CaptureFixture[str]) -> None:
    print_kernels(kernel_rows([entry("conv", source="resnet18"), entry("x", latency_us=None)]))
    header, first, second = printed.readouterr().out.splitlines()
    assert header.split()[:2] == ["kernel", "calls"]
    values = " ".join(first.split())
    # The share is unknown: the model has a kernel that was not measured.
    assert values == "conv 1 0.100 class resnet18 200 100 2.00x 1000 - 6 4"
    assert second.split()[6:10] == ["-", "-", "-", "-"]


def test_bench_bars_are_as_long_as_the_latencies(printed: pytest.CaptureFixture[str]) -> None:
    print_bench(bench_rows(contest(10.0, onnxruntime=20.0), name="mine"))
    _, ours, theirs = printed.readouterr().out.splitlines()
    bars = [len(line.split()[-1]) for line in (ours, theirs)]
    assert bars[1] == 2 * bars[0]
    assert "2.00x faster" in theirs
