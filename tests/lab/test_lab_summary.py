"""Rows brought together: medians, spreads, fractions; and the tables and pictures of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab_rows import LATENCIES_MS, reuse_row, scratch_row, search, stock_row, timed

from tunebank.errors import UsageError
from tunebank.lab.pictures import donor_heat_map, search_panels, source_heat_map, speedup_bars
from tunebank.lab.rows import Row, TimelinePoint, append_row, latest_rows, read_rows
from tunebank.lab.summary import geometric_mean, summarise
from tunebank.lab.tables import (
    fraction_table,
    latency_table,
    length_table,
    scratch_table,
    search_table,
    speedup_table,
    stock_table,
)


def faster(by: float, **changes: float) -> dict[str, float]:
    return {**LATENCIES_MS, "mixed@60": LATENCIES_MS["mixed@60"] / by, **changes}


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "results" / "rows.jsonl"
    rows = [reuse_row(), reuse_row(repeat=1), scratch_row()]
    for row in rows:
        append_row(path, row)
    assert [row.key for row in read_rows(path)] == [row.key for row in rows]
    (back, *_) = read_rows(path)
    assert back.searches == rows[0].searches
    assert {name: len(rounds) for name, rounds in back.timings_ms.items()} == {
        name: len(rounds) for name, rounds in rows[0].timings_ms.items()
    }


def test_a_line_that_was_cut_off_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append_row(path, reuse_row())
    whole = path.read_text()
    path.write_text(whole + whole[: len(whole) // 2] + '\n{"schema_version": 1}\n[]\n')
    assert [row.model for row in read_rows(path)] == ["resnet18"]


def test_of_the_same_repeat_the_last_row_counts(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append_row(path, reuse_row())
    append_row(path, reuse_row(donor_model="vgg16"))
    assert [row.donor_model for row in latest_rows(path)] == ["vgg16"]


def test_ratios_are_medians_over_repeats_with_their_spread() -> None:
    rows = [
        reuse_row(repeat=i, timings_ms=timed(faster(by))) for i, by in enumerate((1.0, 1.2, 1.5))
    ]
    (summary,) = summarise(rows)
    assert summary.repeats == 3
    own = summary.speedup["mixed@60"]
    assert (own.median, own.low, own.high) == pytest.approx((1.6, 12 / 9, 2.0))
    assert summary.over_onnxruntime["mixed@60"].median == pytest.approx(12 / 9)
    assert summary.over_full["mixed@60"].median == pytest.approx(8 / 7.5)


def test_the_fraction_is_that_of_the_paper() -> None:
    (summary,) = summarise([reuse_row()])
    # (12 / 9 - 1) / (12 / 8 - 1)
    assert summary.fraction["mixed@60"].median == pytest.approx(2 / 3)
    assert summary.fraction["one@0"].median == pytest.approx(0.0)
    assert "full" not in summary.fraction


def test_no_fraction_of_nothing() -> None:
    (summary,) = summarise([reuse_row(timings_ms=timed({**LATENCIES_MS, "full": 11.9}))])
    assert summary.fraction == {}


def test_a_search_that_did_not_match_is_more_than_the_cap() -> None:
    (summary,) = summarise([reuse_row(), scratch_row()])
    assert summary.scratch is not None
    assert summary.scratch.same_time == pytest.approx(1.3)
    assert summary.scratch.in_the_end == pytest.approx(1.1)
    assert summary.scratch.in_model is not None
    assert not summary.scratch.in_model.is_reached
    assert summary.scratch.in_model.times_longer == pytest.approx(600 / 54)
    assert summary.scratch.matches[60.0].times_longer == pytest.approx(600 / 54)
    # 90 s to match a search of 9 s, more than 600 s one of 54 s
    row, median = scratch_table([summary]).rows
    longer = "> 600 (> 11.1)"
    assert row == ("resnet18", "1.30", "1.10", longer, "90 (10.0)", longer, longer)
    assert median[-3:] == ("(10.0)", "(> 11.1)", "(> 11.1)")


def test_a_plan_from_scratch_matches_when_it_is_as_fast_in_the_model() -> None:
    timings = timed(
        {"onnxruntime": 10.0, "mixed@60": 9.0, "scratch@54": 9.5, "scratch@270": 9.0,
         "scratch@600": 8.5}
    )  # fmt: skip
    searches = (search("mixed", 60.0), *(search("scratch", s) for s in (54.0, 270.0, 600.0)))
    (summary,) = summarise([reuse_row(), scratch_row(searches=searches, timings_ms=timings)])
    assert summary.scratch is not None
    assert summary.scratch.in_model is not None
    assert summary.scratch.in_model.is_reached
    assert summary.scratch.in_model.seconds == 270.0
    assert scratch_table([summary]).rows[0][3] == "270 (5.0)"


def test_its_own_trials_alone_match_later() -> None:
    timeline = (TimelinePoint(54.0, 9, 9000.0), TimelinePoint(540.0, 90, 8000.0, 9000.0))
    (summary,) = summarise([reuse_row(), scratch_row(timeline=timeline)])
    assert summary.scratch is not None
    assert summary.scratch.alone is not None
    assert scratch_table([summary]).rows[0][-2:] == ("54 (1.0)", "540 (10.0)")


def test_a_search_that_did_not_measure_all_kernels_has_no_match() -> None:
    unmeasured = search("mixed", 10.0, kernels_us=None)
    row = scratch_row(searches=(unmeasured, search("mixed", 60.0), search("scratch", 54.0)))
    (summary,) = summarise([reuse_row(), row])
    assert summary.scratch is not None
    assert list(summary.scratch.matches) == [60.0]


def test_the_median_of_times_is_a_bound_if_a_lower_one_is() -> None:
    def rows(*seconds: float) -> list[Row]:
        return [
            row
            for index, at in enumerate(seconds)
            for row in (
                reuse_row(f"m{index}"),
                scratch_row(f"m{index}", timeline=(TimelinePoint(at, 9, 9000.0),)),
            )
        ]

    capped = [reuse_row("slow"), scratch_row("slow")]  # more than 11.1 times
    assert scratch_table(summarise(rows(54.0, 108.0, 5400.0))).rows[-1][-2] == "(2.0)"
    assert scratch_table(summarise(rows(54.0, 5400.0) + capped)).rows[-1][-2] == "(> 11.1)"
    assert scratch_table(summarise(rows(540.0, 540.0, 540.0) + capped)).rows[-1][-2] == "(10.0)"


def test_stock_is_shown_relative_to_its_own_run() -> None:
    (summary,) = summarise([reuse_row(), stock_row()])
    assert stock_table([summary]).rows == (("resnet18", "300", "500", "0.62", "0.50"),)
    assert stock_table(summarise([reuse_row()])).rows == ()


def test_tables_show_losses_as_they_are() -> None:
    slow = timed({**LATENCIES_MS, "mixed@60": 20.0})
    summaries = summarise([reuse_row("vgg16", timings_ms=slow), reuse_row("resnet18")])
    assert [one.model for one in summaries] == ["resnet18", "vgg16"], "in the order of the zoo"
    table = speedup_table(summaries)
    assert table.rows[1] == (
        "vgg16", "1", "0.60 [0.60, 0.60]", "0.40 [0.40, 0.40]", "0.50 [0.50, 0.50]"
    )  # fmt: skip
    assert table.rows[2][0] == "geometric mean"
    assert float(table.rows[2][4]) == pytest.approx(geometric_mean([0.5, 10 / 9]), abs=0.01)
    assert latency_table(summaries).columns[:4] == ("model", "untuned", "full", "onnxruntime")
    assert fraction_table(summaries).rows[1][-1] == "-0.80"  # (0.6 - 1) / (1.5 - 1)
    assert len(search_table(summaries).rows) == 8


def test_lengths_stand_apart() -> None:
    row = reuse_row(
        "bert_128",
        searches=(search("mixed", 60.0), search("length", 60.0)),
        timings_ms=timed({**LATENCIES_MS, "length@60": 8.0}),
    )
    summaries = summarise([row, reuse_row()])
    assert [cells[0] for cells in length_table(summaries).rows] == ["bert_128"]


def test_pictures_have_the_figures_of_the_tables() -> None:
    summaries = summarise([reuse_row(), scratch_row(), reuse_row("vgg16")])
    bars = speedup_bars(summaries)
    assert bars.series["reuse 60 s, all donors"][0][0] == pytest.approx(10 / 9)
    panel = search_panels(summaries)[0]
    start, end = panel.curves["reuse, all donors"]
    assert (start, end) == (pytest.approx((0.0, 1.1)), pytest.approx((54.0, 0.9)))
    assert panel.curves["MetaSchedule from scratch"][-1] == pytest.approx((600.0, 0.99))
    heat = donor_heat_map(summaries[0])
    assert heat is not None
    assert heat.columns == ["mobilenet_v2", "vgg16"]
    assert heat.values == [[pytest.approx(1.25), pytest.approx(100 / 120)]]
    shares = source_heat_map(summaries)
    assert shares.columns == ["mobilenet_v2", "own schedule"]
    assert shares.values[0] == [pytest.approx(0.5), pytest.approx(0.5)]


def test_a_report_needs_results(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from tunebank.lab.report import write_report

    with pytest.raises(UsageError, match="lab evaluate"):
        write_report(tmp_path / "nothing.jsonl", tmp_path)


def test_the_page_is_whole_and_loads_nothing(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from tunebank.lab.report import write_report

    path = tmp_path / "rows.jsonl"
    for row in (reuse_row(), scratch_row(), reuse_row("<b>evil</b>")):
        append_row(path, row)
    written = write_report(path, tmp_path / "report")
    assert all(file.stat().st_size > 0 for file in written)
    page = (tmp_path / "report" / "report.html").read_text()
    assert page.count("<svg") == page.count("</svg>") == 6
    assert "<b>evil" not in page
    assert "http" not in page.replace("http://www.w3.org", "")  # namespaces load nothing
    tables = (tmp_path / "report" / "tables.md").read_text()
    for name in ("speedup.png", "search_time.png", "donors_resnet18.png"):
        assert f"]({name})" in tables
        assert (tmp_path / "report" / name).read_bytes().startswith(b"\x89PNG")
