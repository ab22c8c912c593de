"""Where a bank is: URLs and paths, and how a database there is opened.

    bank.db, ~/banks/a?b.db         a bare path: an SQLite file, whatever its name contains
    sqlite:///bank.db, sqlite://    an SQLite file, a bank in memory
    postgresql://user@host/banks    any other database of SQLAlchemy's

What can be told about a file without opening it as a database is told here.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sqlite3
import time
import urllib.parse
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from tunebank.errors import BankError, MissingExtraError

_BUSY_SECONDS = 30.0
_RETRY_SECONDS = 0.02
_SQLITE_HEADER = b"SQLite format 3\0"
_PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON")


def sqlite_path(url: str) -> Path | None:
    """The file of an SQLite URL or of a bare path; None for another database.

    Raises:
        BankError: not a URL.
    """
    if "://" not in url:
        return Path(url).expanduser()
    if not url.startswith("sqlite"):
        return None
    database = _parsed(url).database
    return Path(database) if database and database != ":memory:" else None


def masked(url: str) -> str:
    """The path or URL to show, its password hidden."""
    if "://" not in url:
        return str(Path(url).expanduser())
    try:
        return sa.make_url(url).render_as_string(hide_password=True)
    except (SQLAlchemyError, ValueError):
        return url.partition("://")[0] + "://…"


def check_file(path: Path, *, create: bool) -> None:
    """Raises `BankError` for a file that can't be a bank, before SQLite says it worse."""
    try:
        if path.is_dir():
            raise BankError(f"{path}: a folder, not a bank; name a file, such as {path}/bank.db")
        if not path.exists():
            if not create:
                raise BankError(f"{path}: no such bank; `tunebank bank import` makes one")
            return
        with path.open("rb") as file:
            start = file.read(len(_SQLITE_HEADER))
    except PermissionError as error:
        raise BankError(f"{path}: no permission to read it; change it with chmod u+rw") from error
    if not start and not create:
        raise BankError(f"{path}: an empty file, not a bank; `tunebank bank import` fills it")
    if start and start != _SQLITE_HEADER:
        raise BankError(
            f"{path}: not a database, so not a bank; name another file, "
            "or take it in with `tunebank bank import` if it is an export"
        )


def open_engine(url: str, path: Path | None, *, readonly: bool) -> sa.Engine:
    """The engine for a database; connects to nothing yet.

    Raises:
        BankError: not a URL.
        MissingExtraError: no driver for PostgreSQL.
    """
    if path is None:
        return sa.create_engine(_with_driver(_parsed(url)))
    if readonly:
        return sa.create_engine(_readonly_url(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)), connect_args={"timeout": _BUSY_SECONDS}
    )

    @sa.event.listens_for(engine, "connect")
    def _configure(connection: Any, _: Any) -> None:
        for pragma in _PRAGMAS:
            _execute_patiently(connection, f"PRAGMA {pragma}")

    return engine


def _execute_patiently(connection: Any, statement: str) -> None:
    """Executes while others hold locks: SQLite's timeout does not cover a change of journal."""
    end = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute(statement)
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(_RETRY_SECONDS)


def file_bytes(path: Path) -> int:
    """Size of an SQLite file and of the write-ahead log beside it."""
    return sum(_size(file) for file in (path, _log_of(path)))


def _readonly_url(path: Path) -> sa.URL:
    """SQLite's URI of a file to read.

    `immutable` makes no lock and no log beside the file, so that its folder may be read-only;
    but it leaves out what another process has written to the log and not yet moved over.
    """
    query = {"uri": "true", "mode": "ro"}
    if not _size(_log_of(path)):
        query["immutable"] = "1"
    return sa.URL.create(
        "sqlite", database="file:" + urllib.parse.quote(str(path.absolute())), query=query
    )


def _log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _size(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def _parsed(url: str) -> sa.URL:
    try:
        return sa.make_url(url)
    except (SQLAlchemyError, ValueError) as error:
        raise BankError(
            f"{masked(url)}: not a database URL; give a path, or one such as "
            "postgresql://user@host/banks"
        ) from error


def _with_driver(url: sa.URL) -> sa.URL:
    """postgresql://… → postgresql+psycopg://…: SQLAlchemy's own choice varies by version."""
    if url.drivername != "postgresql":
        return url
    if importlib.util.find_spec("psycopg") is None:
        raise MissingExtraError(
            f"{url.render_as_string(hide_password=True)}: a bank in PostgreSQL needs an extra; "
            "run pip install 'tunebank[postgres]'"
        )
    return url.set(drivername="postgresql+psycopg")
