"""Rows of the experiments brought together: for each model medians over repeats, and the spread.

All ratios are taken within one interleaved run, never between runs.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tunebank.lab.rows import REUSE, SCRATCH, STOCK, Row, SearchOutcome, TimelinePoint
from tunebank.lab.zoo import ZOO
from tunebank.runtime.bench import LatencySamples, ratio

NOTHING_TO_GAIN = 0.05
"""Where full auto-scheduling is not faster than the default by this part, no fraction is given."""


@dataclass(frozen=True)
class Spread:
    """A figure over repeats: its median, least and largest."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Match:
    """How long auto-scheduling from scratch takes to reach what one search by reuse reached.

    Attributes:
        reuse_seconds: search time that reuse took.
        seconds: search time from scratch until it was as fast as reuse; where that did not happen,
            how long it was let run.
        is_reached: whether it happened; else `seconds` is a lower bound.
    """

    reuse_seconds: float
    seconds: float
    is_reached: bool

    @property
    def times_longer(self) -> float:
        """Search time to match relative to that of reuse."""
        return self.seconds / max(self.reuse_seconds, 1e-9)


@dataclass(frozen=True)
class ScratchResult:
    """Auto-scheduling from scratch beside reuse.

    Attributes:
        in_model: until one of its plans that were timed in the model was as fast there as that of
            reuse by the largest budget; None if none was timed.
        matches: by the budget of reuse, in seconds, until its kernels, each alone, took no longer;
            none for a budget too small to measure all kernels. With the default schedules where no
            trial is faster.
        alone: likewise with its own trials alone, against the largest budget; None if that was not
            followed.
        latency_ms: in the model, by search time in seconds.
        onnxruntime_ms: of ONNX Runtime in the same run.
        same_time: latency of what it found in the search time of reuse, relative to reuse.
        in_the_end: likewise of what it found in all.
    """

    in_model: Match | None
    matches: Mapping[float, Match]
    alone: Match | None
    latency_ms: Mapping[float, float]
    onnxruntime_ms: float
    same_time: float | None
    in_the_end: float | None


@dataclass(frozen=True)
class StockResult:
    """MetaSchedule as it comes.

    Attributes:
        seconds: how long it was let run.
        trials: measured trials.
        over_onnxruntime: how many times faster than ONNX Runtime.
        over_full: how many times faster than full auto-scheduling on our workers.
    """

    seconds: float
    trials: int
    over_onnxruntime: float
    over_full: float


@dataclass(frozen=True)
class ModelSummary:
    """What is known of one model.

    Attributes:
        model: its name.
        repeats: how many rows.
        donor_model: the one donor of mode `one`.
        trials: of full auto-scheduling, in all.
        least_trials: the least of a kernel that takes time.
        latency_ms: by contestant, the median latency.
        p90_ms: by contestant.
        speedup: by contestant, how many times faster than the default schedules.
        over_onnxruntime: by contestant, how many times faster than ONNX Runtime.
        over_full: by contestant, how many times faster than full auto-scheduling.
        fraction: by contestant, the fraction of full auto-scheduling's speed-up; empty where that
            has nothing to gain.
        searches: by contestant, the search of the first repeat.
        search_seconds: by contestant.
        errors: by contestant, the largest error of all repeats.
        scratch: auto-scheduling from scratch; None if it was not run.
        stock: MetaSchedule as it comes; None if it was not run.
    """

    model: str
    repeats: int
    donor_model: str
    trials: int
    least_trials: int
    latency_ms: Mapping[str, Spread] = field(default_factory=dict)
    p90_ms: Mapping[str, Spread] = field(default_factory=dict)
    speedup: Mapping[str, Spread] = field(default_factory=dict)
    over_onnxruntime: Mapping[str, Spread] = field(default_factory=dict)
    over_full: Mapping[str, Spread] = field(default_factory=dict)
    fraction: Mapping[str, Spread] = field(default_factory=dict)
    searches: Mapping[str, SearchOutcome] = field(default_factory=dict)
    search_seconds: Mapping[str, Spread] = field(default_factory=dict)
    errors: Mapping[str, float] = field(default_factory=dict)
    scratch: ScratchResult | None = None
    stock: StockResult | None = None


def summarise(rows: Iterable[Row]) -> list[ModelSummary]:
    """The models in the order of the zoo, others after them."""
    by_model: dict[str, list[Row]] = {}
    for row in rows:
        by_model.setdefault(row.model, []).append(row)
    order = {name: index for index, name in enumerate(ZOO)}
    names = sorted(by_model, key=lambda name: (order.get(name, len(order)), name))
    summaries = [_model(name, by_model[name]) for name in names]
    return [summary for summary in summaries if summary is not None]


def geometric_mean(values: Sequence[float]) -> float:
    """The geometric mean; nan for no values."""
    return statistics.geometric_mean(values) if values else float("nan")


def label(mode: str, budget_seconds: float) -> str:
    """What a search's contestant is called."""
    return f"{mode}@{budget_seconds:g}"


def _model(name: str, rows: Sequence[Row]) -> ModelSummary | None:
    reuse = [row for row in rows if row.experiment == REUSE]
    scratch = [row for row in rows if row.experiment == SCRATCH]
    stock = [row for row in rows if row.experiment == STOCK]
    if not reuse:
        return None
    timed = [_samples(row) for row in reuse]
    over_untuned = _over_repeats(timed, lambda one: _ratios(one, "untuned"))
    return ModelSummary(
        model=name,
        repeats=len(reuse),
        donor_model=reuse[-1].donor_model,
        trials=reuse[-1].trials["total"],
        least_trials=reuse[-1].trials["least"],
        latency_ms=_over_repeats(timed, lambda one: {n: s.median_ms for n, s in one.items()}),
        p90_ms=_over_repeats(timed, lambda one: {n: s.p90_ms for n, s in one.items()}),
        speedup=over_untuned,
        over_onnxruntime=_over_repeats(timed, lambda one: _ratios(one, "onnxruntime")),
        over_full=_over_repeats(timed, lambda one: _ratios(one, "full")),
        fraction=_over_repeats(timed, _fractions),
        searches={label(s.mode, s.budget_seconds): s for s in reuse[0].searches},
        search_seconds=_over_repeats(
            reuse,
            lambda row: {label(s.mode, s.budget_seconds): s.search_seconds for s in row.searches},
        ),
        errors=_largest_errors(reuse),
        scratch=_scratch(scratch[-1]) if scratch else None,
        stock=_stock(stock[-1]) if stock else None,
    )


def _samples(row: Row) -> dict[str, LatencySamples]:
    return {
        name: LatencySamples(tuple(tuple(block) for block in rounds))
        for name, rounds in row.timings_ms.items()
    }


def _ratios(samples: Mapping[str, LatencySamples], reference: str) -> dict[str, float]:
    """How many times faster each is than the reference."""
    if reference not in samples:
        return {}
    return {name: ratio(samples[reference], own).median for name, own in samples.items()}


def _fractions(samples: Mapping[str, LatencySamples]) -> dict[str, float]:
    """(S - 1) / (S_full - 1), S over the default schedules: Gibson and Cano, section 5."""
    speedups = _ratios(samples, "untuned")
    to_gain = speedups.get("full", 1.0) - 1.0
    if to_gain < NOTHING_TO_GAIN:
        return {}
    return {name: (own - 1.0) / to_gain for name, own in speedups.items() if "@" in name}


def _over_repeats(
    repeats: Sequence[object], figures: Callable[..., Mapping[str, float]]
) -> dict[str, Spread]:
    """By name, the figures of all repeats brought together."""
    collected: dict[str, list[float]] = {}
    for repeat in repeats:
        for name, value in figures(repeat).items():
            collected.setdefault(name, []).append(value)
    return {
        name: Spread(statistics.median(values), min(values), max(values))
        for name, values in collected.items()
    }


def _largest_errors(rows: Sequence[Row]) -> dict[str, float]:
    largest: dict[str, float] = {}
    for row in rows:
        for name, error in row.errors.items():
            largest[name] = max(error, largest.get(name, 0.0))
    return largest


def _scratch(row: Row) -> ScratchResult:
    samples = _samples(row)
    reused = {one.budget_seconds: one for one in row.searches if one.mode != SCRATCH}
    times = [one.budget_seconds for one in row.searches if one.mode == SCRATCH]
    named = {seconds: samples.get(f"{SCRATCH}@{seconds:.0f}") for seconds in times}
    in_model = {seconds: one for seconds, one in named.items() if one is not None}
    best = reused[max(reused)]
    own = samples[label(best.mode, best.budget_seconds)]
    same = min(in_model, key=lambda s: abs(s - best.search_seconds), default=None)
    return ScratchResult(
        in_model=_match_in_model(best, {s: ratio(one, own).median for s, one in in_model.items()}),
        matches={
            budget: _match(one, one.kernels_us, row, lambda point: point.kernels_us)
            for budget, one in sorted(reused.items())
            if one.kernels_us is not None
        },
        alone=(
            _match(best, best.kernels_us, row, lambda point: point.alone_us)
            if best.kernels_us is not None
            and any(point.alone_us is not None for point in row.timeline)
            else None
        ),
        latency_ms={seconds: one.median_ms for seconds, one in in_model.items()},
        onnxruntime_ms=samples["onnxruntime"].median_ms if "onnxruntime" in samples else 0.0,
        same_time=ratio(in_model[same], own).median if same is not None else None,
        in_the_end=ratio(in_model[max(in_model)], own).median if in_model else None,
    )


def _match_in_model(reused: SearchOutcome, latencies: Mapping[float, float]) -> Match | None:
    """By the latencies, relative to that of reuse, of plans by search time."""
    if not latencies:
        return None
    reached = min((seconds for seconds, one in latencies.items() if one <= 1.0), default=None)
    seconds = max(latencies) if reached is None else reached
    return Match(reused.search_seconds, seconds, is_reached=reached is not None)


def _match(
    reused: SearchOutcome,
    kernels_us: float,
    row: Row,
    total_us: Callable[[TimelinePoint], float | None],
) -> Match:
    reached = [
        point.seconds
        for point in row.timeline
        if (total := total_us(point)) is not None and total <= kernels_us
    ]
    seconds = reached[0] if reached else row.timeline[-1].seconds if row.timeline else 0.0
    return Match(reused.search_seconds, seconds, is_reached=bool(reached))


def _stock(row: Row) -> StockResult:
    (search,) = row.searches
    samples = _samples(row)
    own = samples[label(STOCK, search.budget_seconds)]
    return StockResult(
        search.budget_seconds,
        search.measured,
        ratio(samples["onnxruntime"], own).median,
        ratio(samples["full"], own).median,
    )
