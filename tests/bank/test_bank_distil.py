"""Small banks made of large ones, and those in the package."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from bank_records import make_failure, make_record
from click.testing import CliRunner

from tunebank.bank import Record, SqlBank, distil, open_banks, shipped_banks
from tunebank.cli.main import cli
from tunebank.errors import BankError, UsageError


def trial(latency_us: float, *tiles: Sequence[int], **changes: Any) -> Record:
    """A record with these tilings."""
    decisions = [[index, list(factors)] for index, factors in enumerate(tiles)]
    trace = json.dumps([[], [*decisions, [9, latency_us]]])
    return make_record(trace=trace, latency_us=latency_us, samples_us=(latency_us,), **changes)


def test_near_copies_and_slow_ones_are_left_out(tmp_path: Path) -> None:
    best, copy = trial(10.0, (4, 8), (2, 16)), trial(11.0, (2, 8), (4, 16))
    other, slow = trial(12.0, (8, 4), (2, 16)), trial(17.0, (1, 2), (1, 3))
    bank = SqlBank("sqlite://")
    bank.deposit([copy, slow, best, other, make_failure(50)])
    made_of = distil(bank, tmp_path / "small.db", keep=5)
    with SqlBank(str(tmp_path / "small.db"), create=False) as small:
        assert small.find(status=None) == [best, other]
    assert made_of["trials"] == 5
    assert (made_of["records"], made_of["kernels"]) == (2, 1)


def test_each_kernel_keeps_so_many(tmp_path: Path) -> None:
    bank = SqlBank("sqlite://")
    for kernel in ("a", "b"):
        bank.deposit(trial(10.0 + n, (1, n + 1), kernel_key=kernel) for n in range(5))
    distil(bank, tmp_path / "small.db", keep=2)
    with SqlBank(str(tmp_path / "small.db")) as small:
        assert sorted(r.kernel_key for r in small.find()) == ["a", "a", "b", "b"]


def test_default_schedules_are_nobody_s_donors(tmp_path: Path) -> None:
    bank = SqlBank("sqlite://")
    bank.deposit([trial(5.0, (2, 8), origin="default"), trial(9.0, (2, 4))])
    assert distil(bank, tmp_path / "small.db", keep=3)["records"] == 1


def test_provenance_stays_with_the_bank(tmp_path: Path) -> None:
    bank = SqlBank("sqlite://")
    bank.deposit([trial(5.0, (2, 8)), trial(6.0, (2, 4), source="bert", device="cpu-b")])
    made_of = distil(bank, tmp_path / "small.db", keep=3)
    assert made_of["trials_by_source"] == {"bert": 1, "resnet18": 1}
    assert made_of["devices"] == ["cpu-a", "cpu-b"]
    assert made_of["tvm_versions"] == ["0.27.0"]
    with SqlBank(str(tmp_path / "small.db"), readonly=True) as small:
        assert small.stats().provenance == made_of
    result = CliRunner().invoke(cli, ["bank", "stats", "--bank", str(tmp_path / "small.db")])
    assert "provenance: trials_by_source: bert" in result.output


def test_damaged_provenance_is_said(tmp_path: Path) -> None:
    path = tmp_path / "bank.db"
    SqlBank(str(path)).close()
    with sqlite3.connect(path) as connection:
        connection.execute("insert into tunebank_meta values ('provenance', '[1')")
    with SqlBank(str(path)) as bank, pytest.raises(BankError, match="provenance is damaged"):
        bank.stats()


def test_nothing_is_overwritten_and_nothing_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "small.db"
    path.write_text("mine")
    with pytest.raises(UsageError, match="already"):
        distil(SqlBank("sqlite://"), path, keep=3)
    with pytest.raises(UsageError, match="at least one"):
        distil(SqlBank("sqlite://"), tmp_path / "new.db", keep=0)
    assert [file.name for file in tmp_path.iterdir()] == ["small.db"]


def test_the_cpu_chooses_the_shipped_bank() -> None:
    names = {path.name for path in shipped_banks()}
    assert "x86-64-avx512.db" in names
    assert [path.name for path in shipped_banks(16)] == ["x86-64-avx512.db"]
    assert {path.name for path in shipped_banks(4)} == names, "no tier of its own: all"


def test_every_shipped_bank_says_where_it_is_from() -> None:
    for path in shipped_banks():
        assert path.stat().st_size < 20e6
        with SqlBank(str(path), readonly=True) as bank:
            stats = bank.stats()
        assert stats.provenance["trials"] >= sum(stats.records.values()) > 0
        assert set(stats.records) == {"ok"}
    with open_banks(["sqlite://"], vector_lanes=16) as chain:
        assert chain.find(limit=1)
