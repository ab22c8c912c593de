"""Tables on stdout: coloured on a terminal, plain and uncut elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich.console import Console
from rich.table import Table

from tunebank.report.bench import BenchRow
from tunebank.report.kernels import KernelRow
from tunebank.report.plan import PlanRow

_WIDTH_OFF_TERMINAL = 1000  # rich would cut at 80 columns; a table is as wide as its texts
_BAR_COLUMNS = 30
_MATCH_STYLES = {"exact": "green", "class": "cyan", "anchor": "yellow"}
_OWN = "(own)"  # chosen was the kernel's default schedule, or what came of it
_FASTER, _SLOWER = "green", "red"

_KERNEL_COLUMNS = (
    "kernel", "calls", "GFLOP", "match", "donor", "default us", "chosen us", "gain", "GFLOP/s",
    "share", "candidates", "measured",
)  # fmt: skip
_KERNEL_NUMBERS = frozenset(_KERNEL_COLUMNS) - {"kernel", "match", "donor"}


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    numbers: Collection[str] = (),
    styles: Sequence[str | None] = (),
) -> None:
    """Prints a table.

    Args:
        columns: the headings.
        rows: the cells, one text for each column. Brackets in them are no markup: names come
            from model files.
        numbers: columns that stand to the right.
        styles: by row, a style.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        justify = "right" if column in numbers else "left"
        table.add_column(column, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for index, row in enumerate(rows):
        table.add_row(*row, style=styles[index] if index < len(styles) else None)
    _print(table)


def print_kernels(rows: Sequence[KernelRow]) -> None:
    """Prints kernels, each with its donor and what that gained."""
    cells = [_kernel_cells(row) for row in rows]
    styles = [_MATCH_STYLES.get(row.match) for row in rows]
    print_table(_KERNEL_COLUMNS, cells, numbers=_KERNEL_NUMBERS, styles=styles)


def print_plan(rows: Sequence[PlanRow]) -> None:
    """Prints kernels, each with the donor that it would get."""
    columns = ("kernel", "calls", "GFLOP", "match", "donor", "candidates", "expected us")
    cells = [
        (
            row.name,
            str(row.weight),
            f"{row.gflop:.3f}",
            row.match,
            row.source or _OWN,
            str(row.candidates),
            _number(row.expected_us, ".0f"),
        )
        for row in rows
    ]
    styles = [_MATCH_STYLES.get(row.match) for row in rows]
    numbers = ("calls", "GFLOP", "candidates", "expected us")
    print_table(columns, cells, numbers=numbers, styles=styles)


def print_bench(rows: Sequence[BenchRow]) -> None:
    """Prints contestants side by side, each with a bar as long as its latency."""
    columns = ("", "median ms", "p90 ms", "this is", "latency")
    mark = "█" if _console().encoding.lower().startswith("utf") else "#"
    cells = [
        (
            row.name,
            f"{row.median_ms:.2f}",
            f"{row.p90_ms:.2f}",
            row.verdict,
            mark * max(1, round(row.bar * _BAR_COLUMNS)),
        )
        for row in rows
    ]
    styles = [_verdict_style(row.speedup) for row in rows]
    print_table(columns, cells, numbers=("median ms", "p90 ms", "this is"), styles=styles)


def _kernel_cells(row: KernelRow) -> tuple[str, ...]:
    return (
        row.name,
        str(row.weight),
        f"{row.gflop:.3f}",
        row.match,
        row.source or _OWN,
        _number(row.untuned_us, ".0f"),
        _number(row.latency_us, ".0f"),
        _number(row.speedup, ".2f", "x"),
        _number(row.gflop_per_s, ".0f"),
        _number(row.share, ".1%"),
        # Apart: the default schedule and refinements are measured too, and are no candidates.
        str(row.candidates),
        str(row.measured),
    )


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "-" if value is None else f"{value:{form}}{unit}"


def _verdict_style(speedup: float | None) -> str | None:
    if speedup is None:
        return "bold"
    return _FASTER if speedup >= 1 else _SLOWER


def _print(table: Table) -> None:
    console = _console()
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as captured:  # rich fills lines up with blanks
        console.print(table)
    for line in captured.get().splitlines():
        console.out(line.rstrip(), highlight=False)


def _console() -> Console:
    console = Console(markup=False, highlight=False, emoji=False)
    if console.is_terminal:
        return console
    return Console(markup=False, highlight=False, emoji=False, width=_WIDTH_OFF_TERMINAL)
