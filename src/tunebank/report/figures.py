"""Pictures drawn with matplotlib from plain data: bars, curves, heat maps."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunebank.errors import MissingExtraError

Figure = Any
"""A matplotlib figure."""

# Okabe and Ito's colours: told apart by those who see few of them, too.
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999")
_METADATA = re.compile(r"<metadata>.*?</metadata>\s*", re.DOTALL)
_PNG_DPI = 110
_FONT_SIZE = 12


@dataclass(frozen=True)
class Bars:
    """Grouped bars.

    Attributes:
        title: the heading.
        y_label: what the height is.
        groups: names of the groups, from left to right.
        series: by name, a height for each group, and the ends of its whisker; None leaves a gap.
        lines: by label, heights of horizontal lines.
        top: where the axis ends; bars beyond it are cut, and their heights written; None fits all.
    """

    title: str
    y_label: str
    groups: Sequence[str]
    series: Mapping[str, Sequence[tuple[float, float, float] | None]]
    lines: Mapping[str, float] = field(default_factory=dict)
    top: float | None = None


@dataclass(frozen=True)
class Panel:
    """One panel of curves.

    Attributes:
        title: its heading.
        curves: by name, points (x, y).
        lines: by label, heights of horizontal lines.
    """

    title: str
    curves: Mapping[str, Sequence[tuple[float, float]]]
    lines: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class HeatMap:
    """A matrix of figures.

    Attributes:
        title: the heading.
        rows: names, from top to bottom.
        columns: names, from left to right.
        values: row by row; None leaves a cell empty.
        value_label: what the figures are.
        is_share: whether they are shares, 0 to 1; else ratios, of which 1 is neutral.
    """

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float | None]]
    value_label: str
    is_share: bool = False


def draw_bars(bars: Bars) -> Figure:
    """Grouped bars with whiskers."""
    width = 0.28 * len(bars.groups) * (len(bars.series) + 1) + 2.0
    figure, axes = _new(1, 1, (min(max(width, 8.0), 15.0), 5.6))
    (axis,) = axes
    step = 0.86 / max(1, len(bars.series))
    for index, (name, values) in enumerate(bars.series.items()):
        places = [i for i, value in enumerate(values) if value is not None]
        known = [value for value in values if value is not None]
        x = [place - 0.43 + step * (index + 0.5) for place in places]
        below = [max(0.0, middle - low) for middle, low, _ in known]
        above = [max(0.0, high - middle) for middle, _, high in known]
        axis.bar(
            x, [m for m, _, _ in known], step, label=name, color=_COLOURS[index % len(_COLOURS)],
            yerr=[below, above], error_kw={"elinewidth": 1.0, "capsize": 2.0},
        )  # fmt: skip
        if bars.top is not None:
            _write_cut(axis, x, [m for m, _, _ in known], bars.top)
    for number, (name, height) in enumerate(bars.lines.items()):
        axis.axhline(height, color="black", linestyle=("-", "--", ":")[number % 3], lw=1.0)
        axis.annotate(name, (1.005, height), xycoords=("axes fraction", "data"), va="center",
                      fontsize=_FONT_SIZE - 2)  # fmt: skip
    if bars.top is not None and axis.get_ylim()[1] > bars.top:
        axis.set_ylim(top=bars.top)
    axis.set_xticks(range(len(bars.groups)), bars.groups, rotation=30, ha="right")
    axis.set_xlim(-0.6, len(bars.groups) - 0.4)
    axis.set_ylabel(bars.y_label)
    axis.set_title(bars.title, loc="left")
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)
    figure.legend(ncols=min(6, len(bars.series)), frameon=False, loc="outside lower left")
    return figure


def draw_curves(
    panels: Sequence[Panel], *, title: str, x_label: str, y_label: str, columns: int = 5
) -> Figure:
    """Curves over a logarithmic axis, panel by panel, with one legend and one scale."""
    columns = min(columns, max(1, len(panels)))
    rows = math.ceil(len(panels) / columns)
    figure, axes = _new(rows, columns, (2.9 * columns + 0.8, 2.7 * rows + 1.0))
    names = list(dict.fromkeys(name for panel in panels for name in panel.curves))
    handles: dict[str, Any] = {}
    heights = [height for panel in panels for height in _heights(panel)]
    for axis, panel in zip(axes, panels, strict=False):
        for name, points in panel.curves.items():
            if not points:
                continue
            colour = _COLOURS[names.index(name) % len(_COLOURS)]
            x, y = zip(*points, strict=True)
            (handles[name],) = axis.plot(x, y, marker="o", ms=4, color=colour)
        for number, (name, height) in enumerate(panel.lines.items()):
            style = ("-", "--", ":")[number % 3]
            handles[name] = axis.axhline(height, color="black", linestyle=style, lw=1.0)
        axis.set_xscale("symlog", linthresh=10.0)
        axis.set_xlim(left=-1.0)
        axis.set_ylim(0.9 * min(heights), 1.05 * max(heights))
        axis.set_xticks([0, 10, 60, 600], ["0", "10", "60", "600"])
        axis.minorticks_off()
        axis.set_title(panel.title, fontsize=_FONT_SIZE)
        axis.set_xlabel(x_label, fontsize=_FONT_SIZE - 1)
        axis.grid(alpha=0.3)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    figure.suptitle(title, x=0.01, ha="left")
    figure.supylabel(y_label, fontsize=_FONT_SIZE)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=6,
                  frameon=False)  # fmt: skip
    return figure


def _heights(panel: Panel) -> list[float]:
    return [y for points in panel.curves.values() for _, y in points] + list(panel.lines.values())


def draw_heat_map(heat: HeatMap) -> Figure:
    """A matrix with its figures written into it."""
    import numpy as np

    size = (max(6.0, 0.85 * len(heat.columns) + 4.5), max(3.0, 0.36 * len(heat.rows) + 2.2))
    figure, (axis,) = _new(1, 1, size)
    matrix = np.array([[np.nan if v is None else v for v in row] for row in heat.values], float)
    matrix = matrix.reshape(len(heat.rows), len(heat.columns))
    tone = matrix if heat.is_share else np.clip(np.log2(matrix), -1.5, 1.5) / 3.0 + 0.5
    image = axis.imshow(
        tone, cmap="Blues" if heat.is_share else "RdBu", vmin=0.0, vmax=1.0, aspect="auto"
    )
    for row, column in zip(*np.nonzero(~np.isnan(matrix)), strict=True):
        depth = tone[row, column] if heat.is_share else 2.0 * abs(tone[row, column] - 0.5)
        colour = "white" if depth > 0.6 else "black"
        axis.text(column, row, f"{matrix[row, column]:.2f}", ha="center", va="center",
                  color=colour, fontsize=_FONT_SIZE - 3)  # fmt: skip
    axis.set_xticks(range(len(heat.columns)), heat.columns, rotation=40, ha="right")
    axis.set_yticks(range(len(heat.rows)), heat.rows)
    axis.set_title(heat.title, loc="left")
    bar = figure.colorbar(image, ax=axis, ticks=[0.0, 0.5, 1.0], shrink=0.8)
    if not heat.is_share:
        bar.ax.set_yticklabels(["0.35", "1", "2.8"])
    bar.set_label(heat.value_label)
    return figure


def as_svg(figure: Figure) -> str:
    """The picture as the text of an `<svg>` element."""
    buffer = io.StringIO()
    # With fixed ids and without a date the same data give the same text.
    with _style().rc_context({"svg.hashsalt": "tunebank", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg")
    text = _METADATA.sub("", buffer.getvalue())
    return text[text.index("<svg") :]


def write_png(figure: Figure, path: Path) -> None:
    """The picture as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=_PNG_DPI)


def _write_cut(axis: Any, places: Sequence[float], heights: Sequence[float], top: float) -> None:
    """The heights of bars that the axis cuts."""
    for x, height in zip(places, heights, strict=True):
        if height > top:
            axis.annotate(f"{height:.1f}", (x, 0.985 * top), ha="center", va="top", rotation=90,
                          color="white", fontsize=_FONT_SIZE - 3)  # fmt: skip


def _new(rows: int, columns: int, inches: tuple[float, float]) -> tuple[Figure, list[Any]]:
    _style().rcParams.update({"font.size": _FONT_SIZE})
    from matplotlib.figure import Figure as NewFigure

    figure = NewFigure(figsize=inches, layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def _style() -> Any:
    """The module matplotlib.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtraError(
            "drawing needs matplotlib; run pip install 'tunebank[report]'"
        ) from error
    return matplotlib
