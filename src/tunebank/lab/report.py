"""The report of the experiments: tables and pictures, as Markdown with PNG files and as a page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tunebank.errors import UsageError
from tunebank.lab.pictures import (
    donor_heat_map,
    fraction_bars,
    length_bars,
    search_panels,
    source_heat_map,
    speedup_bars,
)
from tunebank.lab.rows import Row, latest_rows
from tunebank.lab.summary import ModelSummary, summarise
from tunebank.lab.tables import (
    TableData,
    fraction_table,
    latency_table,
    length_table,
    scratch_table,
    search_table,
    speedup_table,
    stock_table,
)
from tunebank.report.figures import (
    Figure,
    as_svg,
    draw_bars,
    draw_curves,
    draw_heat_map,
    write_png,
)
from tunebank.report.page import Section, html_page, markdown_table

TITLE = "tunebank: reuse of schedules, leave-one-model-out"
PAGE, TABLES = "report.html", "tables.md"


@dataclass(frozen=True)
class _Part:
    """A table with the pictures that go with it, by the names of their files."""

    table: TableData
    pictures: dict[str, Figure]


def write_report(results: Path, folder: Path) -> list[Path]:
    """Draws the results; returns the files that were written.

    Args:
        results: file of the rows.
        folder: where the files go: a page, the tables in Markdown, the pictures.

    Raises:
        UsageError: there are no results.
        MissingExtraError: matplotlib is not installed.
    """
    rows = latest_rows(results)
    summaries = summarise(rows)
    if not summaries:
        raise UsageError(f"{results}: no results; `tunebank lab evaluate` makes them")
    parts = _parts(summaries)
    written = []
    for part in parts:
        for name, figure in part.pictures.items():
            written.append(folder / f"{name}.png")
            write_png(figure, written[-1])
    texts = {TABLES: _markdown(parts), PAGE: _page(rows, parts)}
    for name, text in texts.items():
        written.append(folder / name)
        written[-1].write_text(text)
    return written


def _parts(summaries: Sequence[ModelSummary]) -> list[_Part]:
    with_length = [one for one in summaries if "length@60" in one.over_full]
    heat_maps = {one.model: donor_heat_map(one) for one in summaries}
    curves = draw_curves(
        search_panels(summaries),
        title="Latency in the model against search time",
        x_label="search time, s",
        y_label="latency relative to ONNX Runtime",
    )
    parts = [
        _Part(speedup_table(summaries), {"speedup": draw_bars(speedup_bars(summaries))}),
        _Part(latency_table(summaries), {"search_time": curves}),
        _Part(fraction_table(summaries), {"fraction": draw_bars(fraction_bars(summaries))}),
        _Part(scratch_table(summaries), {}),
        _Part(stock_table(summaries), {}),
        _Part(
            search_table(summaries),
            {"sources": draw_heat_map(source_heat_map(summaries))}
            | {
                f"donors_{_file_name(m)}": draw_heat_map(heat)
                for m, heat in heat_maps.items()
                if heat
            },
        ),
    ]
    if with_length:
        pictures = {"length": draw_bars(length_bars(with_length))}
        parts.insert(4, _Part(length_table(with_length), pictures))
    return [part for part in parts if part.table.rows]


def _file_name(model: str) -> str:
    return re.sub(r"[^\w.-]+", "_", model)


def _markdown(parts: Sequence[_Part]) -> str:
    texts = []
    for part in parts:
        table = part.table
        shown = [f"![{name}]({name}.png)" for name in part.pictures]
        texts.append(
            "\n\n".join(
                [f"## {table.title}", table.note, *shown, markdown_table(table.columns, table.rows)]
            )
        )
    return "\n\n".join(texts) + "\n"


def _page(rows: Sequence[Row], parts: Sequence[_Part]) -> str:
    sections = [
        Section(
            part.table.title,
            part.table.note,
            part.table.columns,
            part.table.rows,
            [as_svg(figure) for figure in part.pictures.values()],
        )
        for part in parts
    ]
    return html_page(TITLE, _intro(rows), sections)


def _intro(rows: Sequence[Row]) -> str:
    """What was measured, on what."""
    first, last = min(row.at for row in rows)[:10], max(row.at for row in rows)[:10]
    devices = "; ".join(sorted({str(row.device["fingerprint"]) for row in rows}))
    threads = ", ".join(sorted({str(row.device["threads"]) for row in rows}))
    packages = sorted({f"{k} {v}" for row in rows for k, v in row.versions.items()})
    return (
        f"{len(rows)} rows, {first} to {last}, on {devices}, {threads} threads for everyone. "
        "A model's own records, and those of its architecture under other names, are withheld "
        f"from reuse. Versions: {', '.join(packages)}."
    )
