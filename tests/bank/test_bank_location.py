"""Where banks are, and what is said of those that can't be opened."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from bank_records import ASSETS, make_record

from tunebank.bank import SqlBank, open_banks
from tunebank.errors import BankError, MissingExtraError

OLD_BANK = ASSETS / "bank_schema_1.db"
NOBODY = 65534


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter; pytest's own is for its owner alone."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def as_nobody() -> Iterator[None]:
    """Permissions bind inside, even if the tests run as root."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    yield
    if is_root:
        os.seteuid(0)


def error_of(url: str, **options: bool) -> str:
    with pytest.raises(BankError) as caught:
        SqlBank(url, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert ";" in message, "says what to do next"
    return message


@pytest.mark.parametrize(
    "name", ["a?b.db", "a#b.db", "a%41b.db", "a b.db", "a&b=c:+'\".db", "ä.db"]
)
@pytest.mark.parametrize("readonly", [True, False])
def test_names_that_mean_something_in_a_url(tmp_path: Path, name: str, readonly: bool) -> None:
    (tmp_path / "50% #1?").mkdir()
    path = tmp_path / "50% #1?" / name
    shutil.copy(OLD_BANK, path)
    with SqlBank(str(path), readonly=readonly) as bank:
        assert bank.find() == [make_record(1), make_record(2)]
    assert [file.name for file in path.parent.iterdir()] == [name]


def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(OLD_BANK, tmp_path / "a?b.db")
    monkeypatch.chdir(tmp_path)
    with SqlBank("a?b.db", readonly=True) as bank:
        assert len(bank.find()) == 2


@pytest.mark.parametrize(
    "url",
    [
        "://",
        "http://example.org",
        "postgresql://user:sekret@host:port/db",
        "nosuch+driver://user:sekret@host/db",
        "a\0b",
        "x" * 5000,
    ],
)
def test_bad_urls(url: str) -> None:
    assert "sekret" not in error_of(url)


def test_a_driver_that_is_not_installed() -> None:
    try:
        import psycopg  # noqa: F401
    except ImportError:
        with pytest.raises(MissingExtraError, match=r"tunebank\[postgres\]") as caught:
            SqlBank("postgresql://user:sekret@host/db")
        assert "sekret" not in str(caught.value)
    else:
        assert "sekret" not in error_of("postgresql://user:sekret@127.0.0.1:1/db")


@pytest.mark.parametrize("options", [{}, {"create": False}, {"readonly": True}])
def test_files_that_are_no_banks(tmp_path: Path, options: dict[str, bool]) -> None:
    short, long = tmp_path / "short.txt", tmp_path / "long.txt"
    short.write_text("hello")
    long.write_text("hello\n" * 1000)
    for path in (short, long):
        assert "not a database" in error_of(str(path), **options)
    assert "a folder" in error_of(str(tmp_path), **options)
    other = tmp_path / "other.db"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE cats (name TEXT)")
    connection.commit()
    connection.close()
    assert "not a bank" in error_of(str(other), **options)
    assert short.read_text() == "hello", "left as it was"


def test_an_empty_file_becomes_a_bank_only_if_one_may_be_made(tmp_path: Path) -> None:
    path = tmp_path / "bank.db"
    path.touch()
    for options in ({"create": False}, {"readonly": True}):
        assert "empty file" in error_of(str(path), **options)
    assert path.stat().st_size == 0
    with SqlBank(str(path)) as bank:
        assert bank.deposit([make_record()]) == 1


@pytest.mark.parametrize("readonly", [True, False])
def test_a_newer_schema(tmp_path: Path, readonly: bool) -> None:
    path = tmp_path / "bank.db"
    shutil.copy(OLD_BANK, path)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE tunebank_meta SET value = '999'")
    connection.commit()
    connection.close()
    assert "pip install -U tunebank" in error_of(str(path), readonly=readonly)


def test_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "bank.db"
    path.write_bytes(OLD_BANK.read_bytes()[:20_000])
    with pytest.raises(BankError, match="restore") as caught, SqlBank(str(path)) as bank:
        bank.find()
    assert "\n" not in str(caught.value)


def test_a_file_without_permission(open_folder: Path, as_nobody: None) -> None:
    path = open_folder / "bank.db"
    with _owner():
        shutil.copy(OLD_BANK, path)
        path.chmod(0)
    assert "chmod" in error_of(str(path))
    assert "chmod" in error_of(str(path), readonly=True)


def test_a_new_bank_where_none_can_be_made(open_folder: Path, as_nobody: None) -> None:
    with _owner():
        open_folder.chmod(0o555)
    error_of(str(open_folder / "bank.db"))
    error_of(str(open_folder / "new" / "bank.db"))


def test_a_bank_in_a_folder_that_is_read_only(open_folder: Path, as_nobody: None) -> None:
    path = open_folder / "bank.db"
    with _owner():
        SqlBank(str(path)).close()  # in write-ahead mode, as every bank that we make
        with SqlBank(str(path)) as bank:
            bank.deposit([make_record(1)])
        path.chmod(0o444)
        open_folder.chmod(0o555)
    with SqlBank(str(path), readonly=True) as bank:
        assert bank.find() == [make_record(1)]
        with pytest.raises(BankError, match="written"):
            bank.deposit([make_record(2)])
    error_of(str(path))
    assert [file.name for file in open_folder.iterdir()] == ["bank.db"]


def test_all_banks_but_the_first_may_be_read_only(open_folder: Path, as_nobody: None) -> None:
    shared = open_folder / "shared.db"
    with _owner():
        with SqlBank(str(shared)) as bank:
            bank.deposit([make_record(1)])
        open_folder.chmod(0o555)
    with open_banks(["sqlite://", str(shared)], include_shipped=False) as chain:
        chain.deposit([make_record(2)])
        assert chain.find() == [make_record(1), make_record(2)]


def test_reading_misses_nothing_that_is_still_in_the_log(tmp_path: Path) -> None:
    path = tmp_path / "bank.db"
    with SqlBank(str(path)) as writer:
        writer.deposit([make_record(1)])
        assert (tmp_path / "bank.db-wal").stat().st_size > 0
        with SqlBank(str(path), readonly=True) as reader:
            assert reader.find() == [make_record(1)]


def test_the_size_counts_the_log(tmp_path: Path) -> None:
    path = tmp_path / "bank.db"
    with SqlBank(str(path)) as bank:
        bank.deposit([make_record(n) for n in range(50)])
        log_bytes = (tmp_path / "bank.db-wal").stat().st_size
        assert log_bytes > 0
        assert bank.stats().size_bytes == path.stat().st_size + log_bytes
    with SqlBank("sqlite://") as memory:
        assert memory.stats().size_bytes is None


def test_opening_fails_without_leaving_banks_open(tmp_path: Path) -> None:
    first = tmp_path / "first.db"
    with pytest.raises(BankError):
        open_banks([str(first), str(tmp_path / "missing.db")], include_shipped=False)
    assert [file.name for file in tmp_path.iterdir()] == ["first.db"], "no log: it was closed"


class _owner:  # noqa: N801  reads as a word in a `with`
    """Inside, the tests' own user again."""

    def __enter__(self) -> None:
        self._user = os.geteuid()
        os.seteuid(os.getuid())

    def __exit__(self, *_: object) -> None:
        os.seteuid(self._user)
