"""What the report's pictures show, as plain data."""

from __future__ import annotations

from collections.abc import Sequence

from tunebank.lab.rows import KernelOutcome, SearchOutcome
from tunebank.lab.summary import ModelSummary, Spread
from tunebank.report.figures import Bars, HeatMap, Panel

PAPER_FRACTION = 0.4913
"""Mean fraction of the full auto-scheduler's speed-up in arXiv 2201.05587, abstract."""
_HEAT_MAP_KERNELS = 16
_WITHOUT_DONOR = "own schedule"
_NAMES = {
    "untuned": "default schedules",
    "full": "full auto-scheduling",
    "onnxruntime": "ONNX Runtime",
    "torch": "PyTorch",
    "torch_compile": "torch.compile",
    "one@60": "reuse 60 s, one donor",
    "mixed@60": "reuse 60 s, all donors",
    "direct@60": "reuse 60 s, all donors, schedules alone",
    "length@60": "reuse 60 s, other length",
}


def speedup_bars(summaries: Sequence[ModelSummary]) -> Bars:
    """Everyone relative to ONNX Runtime: higher is faster."""
    names = ("untuned", "full", "one@60", "direct@60", "mixed@60", "torch", "torch_compile")
    return Bars(
        title="Speed relative to ONNX Runtime (higher is faster)",
        y_label="times as fast as ONNX Runtime",
        groups=[one.model for one in summaries],
        series={
            _NAMES[name]: [_bar(one.over_onnxruntime.get(name)) for one in summaries]
            for name in names
            if any(name in one.over_onnxruntime for one in summaries)
        },
        lines={"ONNX Runtime": 1.0},
    )


def fraction_bars(summaries: Sequence[ModelSummary]) -> Bars:
    """The fraction of full auto-scheduling's speed-up; models where that gains are shown."""
    shown = [one for one in summaries if one.fraction]
    return Bars(
        title="Fraction of full auto-scheduling's speed-up",
        y_label="(S - 1) / (S full - 1)",
        groups=[one.model for one in shown],
        series={
            _NAMES[name]: [_bar(one.fraction.get(name)) for one in shown]
            for name in ("one@60", "mixed@60")
            if any(name in one.fraction for one in shown)
        },
        lines={"full": 1.0, "paper": PAPER_FRACTION, "default": 0.0},
        top=3.0,
    )


def length_bars(summaries: Sequence[ModelSummary]) -> Bars:
    """Records of the same network for another length of text."""
    shown = [one for one in summaries if "length@60" in one.over_full]
    return Bars(
        title="From one length of text to another (higher is faster)",
        y_label="times as fast as full auto-scheduling",
        groups=[one.model for one in shown],
        series={
            _NAMES[name]: [_bar(one.over_full.get(name)) for one in shown]
            for name in ("untuned", "mixed@60", "length@60")
        },
        lines={"full": 1.0},
    )


def search_panels(summaries: Sequence[ModelSummary]) -> list[Panel]:
    """Latency in the model against search time, relative to ONNX Runtime in the same run."""
    return [
        Panel(
            title=one.model,
            curves={
                "reuse, all donors": _reuse_curve(one, "mixed"),
                "reuse, one donor": _reuse_curve(one, "one"),
                "MetaSchedule from scratch": _scratch_curve(one),
            },
            lines={"ONNX Runtime": 1.0} | _full_line(one),
        )
        for one in summaries
    ]


def donor_heat_map(summary: ModelSummary) -> HeatMap | None:
    """By kernel and donor model, what its fastest candidate gained over the default schedule.

    None if no donor's candidate was measured.
    """
    found = summary.searches.get("mixed@60")
    if found is None:
        return None
    kernels = [k for k in _heaviest(found) if k.donors_us and k.untuned_us]
    columns = sorted({source for kernel in kernels for source in kernel.donors_us})
    if not columns:
        return None
    values = [
        [
            kernel.untuned_us / kernel.donors_us[source]
            if kernel.untuned_us and source in kernel.donors_us
            else None
            for source in columns
        ]
        for kernel in kernels
    ]
    return HeatMap(
        title=f"{summary.model}: kernels by donors",
        rows=[f"{kernel.name} {kernel.gflop:.2g} GF x{kernel.weight}" for kernel in kernels],
        columns=columns,
        values=values,
        value_label="times as fast as the default",
    )


def _heaviest(found: SearchOutcome) -> list[KernelOutcome]:
    """The kernels that take the most time, first."""
    timed = [kernel for kernel in found.kernels if kernel.latency_us is not None]
    timed.sort(key=lambda kernel: -kernel.weight * (kernel.latency_us or 0.0))
    return timed[:_HEAT_MAP_KERNELS]


def source_heat_map(summaries: Sequence[ModelSummary]) -> HeatMap:
    """By model and donor, the share of the time in kernels that the donor's schedules serve."""
    shares = [_shares(one) for one in summaries]
    columns = sorted({name for share in shares for name in share} - {_WITHOUT_DONOR})
    columns.append(_WITHOUT_DONOR)
    return HeatMap(
        title="Whose schedules were chosen: share of each model's time",
        rows=[one.model for one in summaries],
        columns=columns,
        values=[[share.get(name) for name in columns] for share in shares],
        value_label="share of the model's time",
        is_share=True,
    )


def _shares(summary: ModelSummary) -> dict[str, float]:
    found = summary.searches.get("mixed@60")
    times: dict[str, float] = {}
    for kernel in found.kernels if found else ():
        time_us = kernel.weight * (kernel.latency_us or 0.0)
        source = kernel.source or _WITHOUT_DONOR
        times[source] = times.get(source, 0.0) + time_us
    total = sum(times.values())
    return {source: time_us / total for source, time_us in times.items()} if total else {}


def _reuse_curve(summary: ModelSummary, mode: str) -> list[tuple[float, float]]:
    points = []
    for name, spread in summary.over_onnxruntime.items():
        if name.startswith(f"{mode}@"):
            seconds = summary.search_seconds[name].median if name in summary.search_seconds else 0.0
            points.append((seconds, 1.0 / spread.median))
    return sorted(points)


def _scratch_curve(summary: ModelSummary) -> list[tuple[float, float]]:
    found = summary.scratch
    if found is None or not found.onnxruntime_ms:
        return []
    start = summary.over_onnxruntime.get("untuned")
    first = [(0.0, 1.0 / start.median)] if start else []
    return first + [(s, ms / found.onnxruntime_ms) for s, ms in sorted(found.latency_ms.items())]


def _full_line(summary: ModelSummary) -> dict[str, float]:
    full = summary.over_onnxruntime.get("full")
    return {"full auto-scheduling": 1.0 / full.median} if full else {}


def _bar(spread: Spread | None) -> tuple[float, float, float] | None:
    return None if spread is None else (spread.median, spread.low, spread.high)
