"""Tables of the experiments, as cells: for the terminal, for Markdown, for the page."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tunebank.lab.summary import (
    NOTHING_TO_GAIN,
    Match,
    ModelSummary,
    Spread,
    geometric_mean,
)

BEST = "mixed@60"
_MODES = ("one", "mixed", "direct", "length", "scratch")
_NONE = "-"


@dataclass(frozen=True)
class TableData:
    """A table.

    Attributes:
        title: what it shows.
        columns: the headings; all but the first stand to the right.
        rows: the cells.
        note: how to read it.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def latency_table(summaries: Sequence[ModelSummary]) -> TableData:
    """Latencies of all contestants."""
    names = _contestants(summaries)
    rows = [
        (one.model, *(_number(one.latency_ms.get(name), "{:.2f}") for name in names))
        for one in summaries
    ]
    return TableData(
        "Latency, ms", ("model", *names), tuple(rows), "Medians; over repeats, median."
    )


def speedup_table(summaries: Sequence[ModelSummary]) -> TableData:
    """What reuse within a minute comes to, against everyone."""
    columns = ("model", "repeats", "over default", "over full", "over ONNX Runtime")
    figures = [
        (one.speedup.get(BEST), one.over_full.get(BEST), one.over_onnxruntime.get(BEST))
        for one in summaries
    ]
    rows = [
        (one.model, str(one.repeats), *map(_with_spread, spreads))
        for one, spreads in zip(summaries, figures, strict=True)
    ]
    means = [
        _plain(geometric_mean([s.median for s in column if s is not None]))
        for column in zip(*figures, strict=True)
    ]
    rows.append(("geometric mean", "", *means))
    return TableData(
        "Reuse with 60 s of search: how many times faster",
        columns,
        tuple(rows),
        "Over 1 is faster. Median over repeats [least, largest]; ratios are taken within one "
        "interleaved run.",
    )


def fraction_table(summaries: Sequence[ModelSummary]) -> TableData:
    """The paper's measure, for each mode and budget."""
    names = sorted({n for one in summaries for n in one.searches}, key=_mode_and_budget)
    rows = []
    for one in summaries:
        cells = [_number(one.fraction.get(name), "{:.2f}") for name in names]
        full = _with_spread(one.speedup.get("full"))
        rows.append((one.model, one.donor_model or _NONE, str(one.least_trials), full, *cells))
    columns = ("model", "one donor", "trials", "full over default", *names)
    return TableData(
        "Fraction of full auto-scheduling's speed-up",
        columns,
        tuple(rows),
        "(S - 1) / (S_full - 1), S over the default schedules. None where full auto-scheduling "
        f"gains less than {100 * NOTHING_TO_GAIN:.0f} % over them. "
        "`trials`: the least of a kernel that takes time.",
    )


def scratch_table(summaries: Sequence[ModelSummary]) -> TableData:
    """Auto-scheduling from scratch against the clock."""
    found = [(one.model, one.scratch) for one in summaries if one.scratch is not None]
    budgets = sorted({budget for _, scratch in found for budget in scratch.matches})
    rows = [
        (
            model,
            _plain(scratch.same_time),
            _plain(scratch.in_the_end),
            _match(scratch.in_model),
            *(_match(scratch.matches.get(budget)) for budget in budgets),
            _match(scratch.alone),
        )
        for model, scratch in found
    ]
    if rows:
        medians = [_median_times([s.matches.get(b) for _, s in found]) for b in budgets]
        in_model = _median_times([s.in_model for _, s in found])
        alone = _median_times([s.alone for _, s in found])
        rows.append(("median", "", "", in_model, *medians, alone))
    columns = (
        "model",
        "latency at the same search time, relative to reuse",
        "latency in the end, relative to reuse",
        "search s to match it in the model",
        *(f"search s to match the kernels of reuse of {budget:g} s" for budget in budgets),
        "the same with its own trials alone",
    )
    return TableData(
        "MetaSchedule from scratch, on our workers",
        columns,
        tuple(rows),
        "Over 1 is slower than reuse. It matches in the model when a plan that was kept after 1, "
        "2, 5, 10 or 20 times the search time of reuse is as fast there; it matches the kernels "
        "when its own, each measured alone, take no longer. In brackets, how many times the search "
        "time of reuse. It has our default schedules where no trial of its own is faster, but in "
        "the last column. Where it did not match, `>` stands before the time that it was let run.",
    )


def stock_table(summaries: Sequence[ModelSummary]) -> TableData:
    """MetaSchedule as it comes."""
    rows = [
        (
            one.model,
            f"{one.stock.seconds:g}",
            str(one.stock.trials),
            _plain(one.stock.over_onnxruntime),
            _plain(one.stock.over_full),
        )
        for one in summaries
        if one.stock is not None
    ]
    return TableData(
        "MetaSchedule as it comes: how many times faster",
        ("model", "search s", "trials", "over ONNX Runtime", "over full"),
        tuple(rows),
        "With its own builder, runner and task scheduler. Over 1 is faster. Kernels that it did "
        "not reach have our default schedules.",
    )


def _match(match: Match | None) -> str:
    if match is None:
        return _NONE
    more = "" if match.is_reached else "> "
    return f"{more}{match.seconds:.0f} ({more}{match.times_longer:.1f})"


def _median_times(matches: Sequence[Match | None]) -> str:
    """The median of the times longer: a lower bound if one up to the middle is one."""
    known = [match for match in matches if match is not None]
    if not known:
        return _NONE
    ordered = sorted(known, key=lambda match: match.times_longer)
    median = statistics.median(match.times_longer for match in ordered)
    is_bound = any(not match.is_reached for match in ordered[: len(ordered) // 2 + 1])
    return f"({'> ' if is_bound else ''}{median:.1f})"


def search_table(summaries: Sequence[ModelSummary]) -> TableData:
    """What the searches did."""
    rows = []
    for one in summaries:
        for name in sorted(one.searches, key=_mode_and_budget):
            found = one.searches[name]
            counts = (
                found.candidates, found.measured, found.invalid, found.failed, found.wrong,
                found.without_donor, found.slower,
            )  # fmt: skip
            seconds = _with_spread(one.search_seconds.get(name), "{:.1f}")
            rows.append((one.model, name, seconds, *map(str, counts)))
    columns = (
        "model", "search", "seconds", "candidates", "measured", "illegal", "failed", "wrong",
        "kernels without donor", "kernels slower alone than default",
    )  # fmt: skip
    return TableData("Searches", columns, tuple(rows), "Counts are those of the first repeat.")


def length_table(summaries: Sequence[ModelSummary]) -> TableData:
    """One length of text as the donor of another."""
    rows = [
        (one.model, name.removeprefix("length@"), _with_spread(one.speedup.get(name)),
         _with_spread(one.over_full.get(name)), _with_spread(one.over_onnxruntime.get(name)))
        for one in summaries
        for name in sorted(one.searches, key=_mode_and_budget)
        if name.startswith("length@")
    ]  # fmt: skip
    return TableData(
        "The same network for another length of text as the only donor",
        ("model", "search s", "over default", "over full", "over ONNX Runtime"),
        tuple(rows),
        "Apart from all other figures: the donor is of the same architecture.",
    )


def _contestants(summaries: Sequence[ModelSummary]) -> list[str]:
    """Rivals first, then searches by mode and budget."""
    names = {name for one in summaries for name in one.latency_ms}
    first = ["untuned", "full", "onnxruntime", "torch", "torch_compile"]
    searches = sorted((name for name in names if "@" in name), key=_mode_and_budget)
    return [name for name in first if name in names] + searches


def _mode_and_budget(name: str) -> tuple[int, float]:
    mode, _, budget = name.partition("@")
    return _MODES.index(mode), float(budget)


def _number(spread: Spread | None, form: str) -> str:
    return _NONE if spread is None else form.format(spread.median)


def _with_spread(spread: Spread | None, form: str = "{:.2f}") -> str:
    if spread is None:
        return _NONE
    low, high = form.format(spread.low), form.format(spread.high)
    return f"{form.format(spread.median)} [{low}, {high}]"


def _plain(value: float | None) -> str:
    return _NONE if value is None or value != value else f"{value:.2f}"
