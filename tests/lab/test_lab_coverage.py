"""The survey: outcomes told apart, kept, and drawn as a table."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tunebank.errors import MissingExtraError, TunebankError
from tunebank.lab import commands, coverage
from tunebank.lab.architectures import Entry, find_entries
from tunebank.lab.commands import Ended, run_tunebank
from tunebank.lab.coverage import CoverageSettings, Outcome, Pair, pairs_of, read_outcomes, survey
from tunebank.lab.coverage_table import COLUMNS, cells, write_markdown

RESULT = {
    "prepare_seconds": 4.0,
    "verified": {
        "passed": True,
        "max_abs_error": 1.5,
        "max_rel_error": 1.5e-6,
        "tolerance": 6e-5,
    },
    "kernels": [{}, {}, {}],
    "front_half": {
        "read_seconds": 0.1,
        "canonicalise_seconds": 0.25,
        "import_seconds": 1.5,
        "total_seconds": 1.85,
        "peak_memory_mib": 700.0,
        "strategy": "full",
        "convolutions": {"NHWC": 20, "NCHW": 1, "NCW": 2},
        "warnings": [],
    },
}


def ended(code: int | None = 0, result: dict[str, Any] | None = None, log: str = "") -> Ended:
    return Ended(code, json.dumps(result) if result else "", log, 2.0, 500.0)


class Machine:
    """Stands for the command line: gives what it is told to, and counts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.folder, self.answer, self.runs = folder, ended(0, RESULT), 0
        self.content = b"model"
        monkeypatch.setattr(coverage, "run_tunebank", self.run)
        monkeypatch.setattr(coverage, "model_file", self.model_file)

    def run(self, arguments: list[str], *, timeout_seconds: float) -> Ended:
        if arguments[0] == "bench":
            return ended(0, {"against": {"onnxruntime": {"speedup": 1.25}}})
        assert arguments[0] == "compile"
        self.runs += 1
        self.arguments = arguments
        return self.answer

    def model_file(self, entry: Entry, reader: str, cache: Path) -> Path:
        path = self.folder / f"{entry.name}.{reader}"
        path.write_bytes(self.content)
        return path


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    return Machine(monkeypatch, tmp_path)


@pytest.fixture
def settings(tmp_path: Path) -> CoverageSettings:
    return CoverageSettings(cache=tmp_path, results=tmp_path / "sub" / "results.jsonl")


PAIRS = pairs_of(find_entries(["resnet18"]), ["onnx", "torch"])


def test_pairs() -> None:
    entries = find_entries(["resnet18", "resnet18_int8"])
    pairs = [(pair.entry.name, pair.reader) for pair in pairs_of(entries, ["onnx", "torch"])]
    assert pairs == [("resnet18", "onnx"), ("resnet18", "torch"), ("resnet18_int8", "onnx")]


@pytest.mark.parametrize(
    ("answer", "status", "message"),
    [
        (ended(0, RESULT), "ok", ""),
        (ended(0, RESULT | {"verified": {"passed": None}}, "all\ndone\n"), "inconclusive", "done"),
        (ended(3, None, "reading\nerror: it differs\n"), "wrong numbers", "error: it differs"),
        (ended(2, None, "error: no such operator"), "error", "error: no such operator"),
        (ended(0, None, ""), "error", ""),
        (ended(-11, None, "reading\nbuilding\n"), "crashed", "building"),
        (ended(None, None, "reading\n"), "timeout", "reading"),
    ],
)
def test_statuses(
    answer: Ended, status: str, message: str, machine: Machine, settings: CoverageSettings
) -> None:
    machine.answer = answer
    (outcome,) = survey(PAIRS[:1], settings)
    assert (outcome.status, outcome.message) == (status, message)
    assert outcome.failed == (status != "ok")
    assert list(read_outcomes(settings.results)) == [outcome]


def test_what_is_known_is_not_run_again(machine: Machine, settings: CoverageSettings) -> None:
    first = survey(PAIRS, settings)
    assert machine.runs == 2
    machine.answer = ended(3)
    assert survey(PAIRS, settings) == first
    assert machine.runs == 2


def test_timed_beside_onnxruntime(machine: Machine, settings: CoverageSettings) -> None:
    (plain, *_) = survey(PAIRS, settings)
    assert plain.over_onnxruntime is None
    assert "--exclude-source" not in machine.arguments
    (timed, *_) = survey(PAIRS, replace(settings, bench=True, again=True))
    assert timed.over_onnxruntime == 1.25
    assert "1.25" in cells(timed)
    hidden = machine.arguments[machine.arguments.index("--exclude-source") + 1 :: 2]
    assert "resnet18" in hidden, "its own records would tell nothing"


def test_another_file_or_the_wish_runs_it_again(
    machine: Machine, settings: CoverageSettings
) -> None:
    survey(PAIRS, settings)
    machine.content = b"another"
    survey(PAIRS, settings)
    assert machine.runs == 4
    again = CoverageSettings(settings.cache, settings.results, again=True)
    survey(PAIRS, again)
    assert machine.runs == 6
    assert len(list(read_outcomes(settings.results))) == 6


def test_what_failed_can_be_run_again(machine: Machine, settings: CoverageSettings) -> None:
    survey(PAIRS[:1], settings)
    machine.answer = ended(3)
    survey(PAIRS, settings)
    assert machine.runs == 2
    machine.answer = ended(0, RESULT)
    retry = CoverageSettings(settings.cache, settings.results, retry=True)
    assert [outcome.status for outcome in survey(PAIRS, retry)] == ["ok", "ok"]
    assert machine.runs == 3


def test_other_versions_run_it_again(
    machine: Machine, settings: CoverageSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    survey(PAIRS, settings)
    monkeypatch.setattr(coverage, "__version__", "99.0")
    survey(PAIRS, settings)
    assert machine.runs == 4


def test_a_line_cut_off_is_run_again(machine: Machine, settings: CoverageSettings) -> None:
    survey(PAIRS, settings)
    text = settings.results.read_text()
    settings.results.write_text(text[:-20] + "\n")
    survey(PAIRS, settings)
    assert machine.runs == 3


def test_a_network_without_a_file(
    machine: Machine, settings: CoverageSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> Path:
        raise TunebankError("resnet18: can't be exported")

    monkeypatch.setattr(coverage, "model_file", fails)
    (outcome,) = survey(PAIRS[:1], settings)
    assert (outcome.status, outcome.message) == ("no file", "resnet18: can't be exported")
    assert outcome.failed


def test_a_missing_extra_ends_it(machine: Machine, settings: CoverageSettings) -> None:
    machine.answer = ended(5, None, "error: needs torch; run `pip install 'tunebank[torch]'`")
    with pytest.raises(MissingExtraError, match=r"^needs torch"):
        survey(PAIRS, settings)


def test_progress(machine: Machine, settings: CoverageSettings) -> None:
    seen: list[Any] = []
    survey(PAIRS, settings, seen.append)
    assert [(p.doing, p.finished, p.total) for p in seen] == [
        ("resnet18 (onnx)", 0, 2),
        ("resnet18 (torch)", 1, 2),
    ]
    assert seen[0].left_seconds is None and seen[1].left_seconds >= 0


def outcome_of(machine: Machine, settings: CoverageSettings, answer: Ended) -> Outcome:
    machine.answer = answer
    return survey([Pair(PAIRS[0].entry, "onnx")], settings)[0]


def test_cells(machine: Machine, settings: CoverageSettings) -> None:
    found = dict(zip(COLUMNS, cells(outcome_of(machine, settings, ended(0, RESULT))), strict=True))
    assert found == {
        "model": "resnet18", "reader": "onnx", "status": "ok", "over ONNX Runtime": "-",
        "max error": "1.5e-06", "allowed": "6.0e-05", "read s": "0.1", "reader MiB": "700",
        "kernels": "3", "NHWC convs": "20", "other convs": "3", "import s": "1.5",
        "canonicalise s": "0.2", "front half s": "1.9", "total s": "2.0", "peak MiB": "700",
    }  # fmt: skip


def test_cells_without_a_front_half(machine: Machine, settings: CoverageSettings) -> None:
    bare = {key: value for key, value in RESULT.items() if key != "front_half"}
    bare["verified"] = {"passed": True, "max_abs_error": 1.5}
    found = dict(zip(COLUMNS, cells(outcome_of(machine, settings, ended(0, bare))), strict=True))
    assert found["front half s"] == "4.0"
    assert found["max error"] == "1.5e+00 abs"
    assert found["NHWC convs"] == found["import s"] == "-"


def test_a_strategy_that_was_second_best_is_told(
    machine: Machine, settings: CoverageSettings
) -> None:
    half = RESULT["front_half"] | {"warnings": ["a crash in FuseOps"], "strategy": "plain"}
    found = cells(outcome_of(machine, settings, ended(0, RESULT | {"front_half": half})))
    assert found[2] == "ok, by strategy 'plain'"


def test_schedules_given_up_are_told(machine: Machine, settings: CoverageSettings) -> None:
    kernels = [{"given_up": []}, {"given_up": ["wrong: in the compiled model"]}]
    found = cells(outcome_of(machine, settings, ended(0, RESULT | {"kernels": kernels})))
    assert found[2] == "ok, 1 with another schedule than chosen"


def test_markdown(machine: Machine, settings: CoverageSettings, tmp_path: Path) -> None:
    good = outcome_of(machine, settings, ended(0, RESULT))
    machine.content = b"other"
    bad = outcome_of(machine, settings, ended(2, None, "error: a|b can't be read"))
    write_markdown([good, bad], tmp_path / "deep" / "table.md")
    lines = (tmp_path / "deep" / "table.md").read_text().splitlines()
    assert lines[0] == "# Models"
    assert any(line.startswith("1 of 2 work. tunebank ") for line in lines)
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 4
    assert "error: a\\|b can't be read" in rows[3]


def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Puts a shell script in Python's place."""
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    monkeypatch.setattr(commands.sys, "executable", str(path))


def test_a_command_that_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path, monkeypatch, 'echo "$@"; echo said >&2; exit 3')
    found = run_tunebank(["plan", "a b"], timeout_seconds=20)
    assert (found.code, found.output, found.log) == (3, "-m tunebank plan a b\n", "said\n")


def test_a_command_that_crashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path, monkeypatch, "kill -SEGV $$")
    assert run_tunebank([], timeout_seconds=20).code == -11


def test_a_command_that_hangs_ends_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(tmp_path, monkeypatch, f"sleep 60 & echo $! > {tmp_path}/child; wait")
    start = time.monotonic()
    assert run_tunebank([], timeout_seconds=1.0).code is None
    assert time.monotonic() - start < 20
    child = int((tmp_path / "child").read_text())
    for _ in range(50):
        if not Path(f"/proc/{child}").exists() or "Z" in state(child):
            return
        time.sleep(0.1)
    os.kill(child, 9)
    pytest.fail("the child lives on")


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "Z"


def test_memory_of_children_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = "import time; x = bytearray(300 << 20); time.sleep(1.5)"
    script(tmp_path, monkeypatch, f'{sys.executable} -c "{program}"; true')
    assert run_tunebank([], timeout_seconds=60).peak_memory_mib > 300


@pytest.mark.parametrize(
    "arguments", [["--readers", "tflite"], ["--readers", ","], ["--models", "resnet17"]]
)
def test_bad_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    from tunebank.cli.main import main

    with pytest.raises(SystemExit) as stopped:
        main(["lab", "coverage", *arguments])
    assert stopped.value.code == 2
    assert "there are: " in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(("answer", "code"), [(ended(0, RESULT), 0), (ended(3), 3)])
def test_the_command(
    answer: Ended, code: int, machine: Machine, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from tunebank.cli.main import main

    machine.answer = answer
    arguments = ["--models", "resnet18", "--cache", str(tmp_path), "--table", f"{tmp_path}/t.md"]
    with pytest.raises(SystemExit) as stopped:
        main(["lab", "coverage", *arguments, "--json"])
    assert stopped.value.code == code
    captured = capsys.readouterr()
    data = json.loads(captured.out)
    assert len(data["outcomes"]) == 2
    assert len(data["failed"]) == (2 if code else 0)
    assert "50%  1 of 2 done" not in captured.out
    assert (tmp_path / "coverage.jsonl").exists() and (tmp_path / "t.md").exists()
