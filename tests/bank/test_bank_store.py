"""Banks in SQLite files: errors, damage, old files, several processes."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from bank_records import ASSETS, make_record

from tunebank.bank import BankChain, SqlBank, default_url, open_banks
from tunebank.errors import BankError

DEPOSITOR = """
import sys
sys.path.insert(0, sys.argv[3])
from bank_records import make_record
from tunebank.bank import SqlBank
bank = SqlBank(sys.argv[1])
for n in range(int(sys.argv[4])):
    record = make_record(n, source=sys.argv[2])
    bank.deposit([record])
    print(record.id, flush=True)
"""


def start_depositor(path: Path, source: str, count: int) -> subprocess.Popen[str]:
    tests = str(Path(__file__).parent)
    command = [sys.executable, "-c", DEPOSITOR, str(path), source, tests, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def execute(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()


def error_of(url: str, **options: bool) -> str:
    with pytest.raises(BankError) as caught:
        SqlBank(url, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_not_a_bank(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a database\n" * 500)
    assert "not a database" in error_of(str(text))
    error_of(str(text / "bank.db"))  # under a regular file: can't be made, root or not
    error_of(str(tmp_path))
    other = tmp_path / "other.db"
    execute(other, "CREATE TABLE cats (name TEXT)")
    assert "not a bank" in error_of(str(other))


def test_a_missing_bank_is_not_made_unasked(tmp_path: Path) -> None:
    path = tmp_path / "none.db"
    assert "no such bank" in error_of(str(path), create=False)
    assert "no such bank" in error_of(str(path), readonly=True)
    assert not path.exists()


def test_schema_versions(tmp_path: Path) -> None:
    path = tmp_path / "bank.db"
    SqlBank(str(path)).close()
    execute(path, "UPDATE tunebank_meta SET value = '999'")
    assert "upgrade tunebank" in error_of(str(path))
    execute(path, "UPDATE tunebank_meta SET value = '0'")
    assert "tunebank bank upgrade" in error_of(str(path))


def test_passwords_are_masked() -> None:
    message = error_of("nosuchdialect://user:sekret@host/db")
    assert "sekret" not in message
    assert "user" in message


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE records SET trace = x'0011'",
        "UPDATE records SET samples_us = '{'",
        "UPDATE records SET samples_us = '5'",
        "UPDATE records SET status = 'odd'",
        "UPDATE records SET latency_us = 'fast'",
        "DROP TABLE kernels",
    ],
)
def test_damaged_rows_are_bank_errors(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "bank.db"
    with SqlBank(str(path)) as bank:
        bank.deposit([make_record()])
    execute(path, damage)
    with SqlBank(str(path)) as bank, pytest.raises(BankError):
        bank.find(status=None)


def test_a_bank_of_schema_1_still_reads(tmp_path: Path) -> None:
    path = tmp_path / "v1.db"
    shutil.copy(ASSETS / "bank_schema_1.db", path)
    with SqlBank(str(path)) as bank:
        assert bank.find() == [make_record(1), make_record(2)]
        assert bank.deposit([make_record(3)]) == 1


def test_readonly_leaves_no_trace(tmp_path: Path) -> None:
    shutil.copy(ASSETS / "bank_schema_1.db", tmp_path / "v1.db")
    with SqlBank(str(tmp_path / "v1.db"), readonly=True) as bank:
        assert len(bank.find()) == 2
        with pytest.raises(BankError):
            bank.deposit([make_record(3)])
    assert [p.name for p in tmp_path.iterdir()] == ["v1.db"]


def test_a_chain_writes_its_first_and_reads_all() -> None:
    first, second = SqlBank("sqlite://"), SqlBank("sqlite://")
    second.deposit([make_record(1), make_record(2)])
    chain = BankChain([first, second])
    chain.deposit([make_record(2), make_record(3)])
    assert chain.find() == [make_record(1), make_record(2), make_record(3)]
    assert chain.find(limit=1) == [make_record(1)]
    assert chain.get(make_record(1).id) == make_record(1)
    assert len(first.find()) == len(second.find()) == 2


def test_the_default_bank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEBANK_BANK", str(tmp_path / "new" / "mine.db"))
    assert default_url().endswith("mine.db")
    with open_banks(include_shipped=False) as chain:
        assert chain.deposit([make_record()]) == 1


def test_a_killed_process_loses_nothing_deposited(tmp_path: Path) -> None:
    path = tmp_path / "bank.db"
    process = start_depositor(path, "killed", 100_000)
    assert process.stdout is not None
    acknowledged = [process.stdout.readline().strip() for _ in range(25)]
    os.kill(process.pid, signal.SIGKILL)
    acknowledged += process.stdout.read().split()[:-1]  # the last may be half a line
    process.wait()
    with SqlBank(str(path)) as bank:
        assert set(acknowledged) <= {record.id for record in bank.find()}


def test_two_processes_deposit_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bank.db"
    processes = [start_depositor(path, source, 60) for source in ("a", "b")]
    assert [p.wait(timeout=60) for p in processes if p.communicate()] == [0, 0]
    with SqlBank(str(path)) as bank:
        assert bank.stats().sources == {"a": 60, "b": 60}


def test_importing_the_room_does_not_import_tvm() -> None:
    code = "import sys, tunebank.bank, tunebank.cli.bank; sys.exit('tvm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_chain_takes_the_best_of_all_banks_together() -> None:
    first, second = SqlBank("sqlite://"), SqlBank("sqlite://")
    first.deposit([make_record(n) for n in (1, 4, 5)])
    second.deposit([make_record(n) for n in (2, 3, 4)])
    chain = BankChain([first, second])
    assert chain.find(best_per_kernel=3) == [make_record(n) for n in (1, 2, 3)]
    assert chain.find(best_per_kernel=3, limit=2) == [make_record(n) for n in (1, 2)]
    assert chain.sources() == ["resnet18"]
