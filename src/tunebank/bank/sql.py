"""A bank in a database, SQLite by default."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from tunebank.bank.bank import BankStats
from tunebank.bank.location import check_file, file_bytes, masked, open_engine
from tunebank.bank.location import sqlite_path as sqlite_path
from tunebank.bank.payload import compress, decompress
from tunebank.bank.record import Record
from tunebank.bank.schema import SCHEMA_VERSION, kernels, meta, metadata, records
from tunebank.errors import BankError, UsageError

_INSERT_CHUNK = 500
_PROVENANCE, _COST_MODEL = "provenance", "cost_model"
_FASTEST_FIRST = (records.c.latency_us.is_(None), records.c.latency_us, records.c.id)
_REMEDIES = (
    ("locked", "try again when no other process writes to it"),
    ("readonly", "name a bank that can be written, or change its permissions"),
    ("is full", "free some space"),
    ("malformed", "restore it from a copy"),
    ("no such table", "restore it from a copy"),
    ("no such column", "restore it from a copy"),
)
"""What to do, by what the database says."""


class SqlBank:
    """A bank in an SQL database; see `Bank` for the contract.

    Args:
        url: an SQLAlchemy URL, or the path of an SQLite file.
        create: makes the database if there is none.
        readonly: opens a file for reading alone, from a folder that may be read-only, and
            makes no files beside it; nobody may write to it meanwhile.

    Raises:
        BankError: nothing there, not a bank, or a bank of another schema.
        MissingExtraError: the driver of that database is not installed.
    """

    def __init__(self, url: str, *, create: bool = True, readonly: bool = False) -> None:
        self.name = masked(url)
        with self._errors("can't be opened", "name another bank"):
            self._path = sqlite_path(url)
            if self._path is not None:
                check_file(self._path, create=create and not readonly)
            self._engine = open_engine(url, self._path, readonly=readonly)
            try:
                self._check_schema(create=create and not readonly)
            except BaseException:
                self._engine.dispose()
                raise

    def __repr__(self) -> str:
        return f"SqlBank({self.name!r})"

    def __enter__(self) -> SqlBank:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """See `Bank.close`."""
        self._engine.dispose()

    def deposit(self, records_: Iterable[Record]) -> int:
        """See `Bank.deposit`."""
        new = {record.id: record for record in records_}
        if not new:
            return 0
        with self._errors("can't be written"), self._engine.begin() as connection:
            known = self._known(connection, records.c.id, new)
            fresh = [record for key, record in new.items() if key not in known]
            by_kernel = {record.kernel_key: record for record in fresh}
            known = self._known(connection, kernels.c.key, by_kernel)
            missing = [_kernel_row(r) for key, r in by_kernel.items() if key not in known]
            # Another process may deposit the same at the same time: the first one stays.
            if missing:
                connection.execute(self._insert(kernels), missing)
            if fresh:
                connection.execute(self._insert(records), [_record_row(r) for r in fresh])
        return len(fresh)

    def get(self, record_id: str) -> Record | None:
        """See `Bank.get`."""
        condition = records.c.id.startswith(record_id, autoescape=True)
        found = self._select([condition], limit=2)
        return found[0] if len(found) == 1 else None

    def find(
        self,
        *,
        kernel_key: str | None = None,
        class_key: str | None = None,
        anchor_key: str | None = None,
        source: str | None = None,
        exclude_sources: Sequence[str] = (),
        status: str | None = "ok",
        limit: int | None = None,
        best_per_kernel: int | None = None,
    ) -> list[Record]:
        """See `Bank.find`."""
        wanted = (
            (kernels.c.key, kernel_key),
            (kernels.c.class_key, class_key),
            (kernels.c.anchor_key, anchor_key),
            (records.c.source, source),
            (records.c.status, status),
        )
        conditions = [column == value for column, value in wanted if value is not None]
        if exclude_sources:
            conditions.append(records.c.source.not_in(list(exclude_sources)))
        if best_per_kernel is not None:
            conditions.append(records.c.latency_us.is_not(None))
            best = _winners(best_per_kernel, conditions, what="best_per_kernel")
            conditions = [records.c.id.in_(best)]
        return self._select(conditions, limit=limit)

    def stats(self) -> BankStats:
        """See `Bank.stats`."""
        with self._errors("can't be read"), self._engine.connect() as connection:

            def counts(column: sa.Column[Any]) -> dict[str, int]:
                query = sa.select(column, sa.func.count()).group_by(column).order_by(column)
                return {str(name): int(count) for name, count in connection.execute(query)}

            classes = sa.select(sa.func.count(kernels.c.class_key.distinct()))
            return BankStats(
                kernels=connection.scalar(sa.select(sa.func.count(kernels.c.key))) or 0,
                classes=connection.scalar(classes) or 0,
                records=counts(records.c.status),
                sources=counts(records.c.source),
                devices=counts(records.c.device),
                size_bytes=file_bytes(self._path) if self._path else None,
                provenance=self._provenance(connection),
            )

    def sources(self) -> list[str]:
        """See `Bank.sources`."""
        query = sa.select(records.c.source).distinct().order_by(records.c.source)
        with self._errors("can't be read"), self._engine.connect() as connection:
            return [str(name) for name in connection.scalars(query)]

    def prune(self, *, keep: int) -> int:
        """See `Bank.prune`."""
        winners = _winners(keep, [], what="keep")
        losers = sa.and_(records.c.id.not_in(winners), records.c.status != "wrong")
        orphans = kernels.c.key.not_in(sa.select(records.c.kernel_key))
        with self._errors("can't be written"), self._engine.begin() as connection:
            dropped = connection.execute(sa.delete(records).where(losers))
            connection.execute(sa.delete(kernels).where(orphans))
        self.compact()
        return int(dropped.rowcount)

    def compact(self) -> None:
        """Gives the space of what was dropped back; does nothing to a database that is no file."""
        if self._path is None:
            return
        with self._errors("can't be written"), self._engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.exec_driver_sql("VACUUM")

    def set_provenance(self, text: str) -> None:
        """Notes what the bank was made of, as a JSON object."""
        self._note(_PROVENANCE, text)

    def cost_models(self) -> list[str]:
        """See `Bank.cost_models`."""
        query = sa.select(meta.c.value).where(meta.c.name == _COST_MODEL)
        with self._errors("can't be read"), self._engine.connect() as connection:
            return [str(text) for text in connection.scalars(query)]

    def set_cost_model(self, text: str) -> None:
        """See `Bank.set_cost_model`."""
        self._note(_COST_MODEL, text)

    def _note(self, name: str, text: str) -> None:
        """Writes a text about the bank, in place of what it was."""
        with self._errors("can't be written"), self._engine.begin() as connection:
            connection.execute(sa.delete(meta).where(meta.c.name == name))
            connection.execute(sa.insert(meta), [{"name": name, "value": text}])

    def _provenance(self, connection: sa.Connection) -> dict[str, Any]:
        query = sa.select(meta.c.value).where(meta.c.name == _PROVENANCE)
        try:
            found = json.loads(connection.scalar(query) or "{}")
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise BankError(f"{self.name}: its provenance is damaged; restore it from a copy")
        return found

    def _select(self, conditions: Sequence[Any], *, limit: int | None) -> list[Record]:
        query = (
            sa.select(records, kernels)
            .join(kernels, records.c.kernel_key == kernels.c.key)
            .where(*conditions)
            .order_by(*_FASTEST_FIRST)
            .limit(limit)
        )
        with self._errors("can't be read"), self._engine.connect() as connection:
            irs: dict[str, str] = {}  # one text for all records of a kernel
            return [self._record(row._mapping, irs) for row in connection.execute(query)]

    def _record(self, row: Any, irs: dict[str, str]) -> Record:
        key = row[kernels.c.key]
        if key not in irs:
            irs[key] = decompress(row[kernels.c.ir], what=f"{self.name}: kernel {key}")
        record_id = row[records.c.id]
        try:
            return Record(
                kernel_key=key,
                class_key=row[kernels.c.class_key],
                anchor_key=row[kernels.c.anchor_key],
                kernel_name=row[kernels.c.name],
                kernel_ir=irs[key],
                flops=row[kernels.c.flops],
                trace=decompress(row[records.c.trace], what=f"{self.name}: record {record_id}"),
                status=row[records.c.status],
                latency_us=row[records.c.latency_us],
                samples_us=tuple(json.loads(row[records.c.samples_us])),
                source=row[records.c.source],
                origin=row[records.c.origin],
                target=row[records.c.target],
                device=row[records.c.device],
                threads=row[records.c.threads],
                tvm_version=row[records.c.tvm_version],
                created_at=row[records.c.created_at],
                error=row[records.c.error],
                donor_id=row[records.c.donor_id],
            )
        except (ValueError, TypeError, RecursionError) as error:
            raise BankError(
                f"{self.name}: record {record_id} is damaged ({error}); restore it from a copy"
            ) from error

    @staticmethod
    def _known(connection: sa.Connection, column: sa.Column[Any], keys: Iterable[str]) -> set[str]:
        """Those of the keys that the column holds."""
        wanted, found = list(keys), set[str]()
        for start in range(0, len(wanted), _INSERT_CHUNK):
            chunk = wanted[start : start + _INSERT_CHUNK]
            found.update(connection.scalars(sa.select(column).where(column.in_(chunk))))
        return found

    def _insert(self, table: sa.Table) -> Any:
        if self._engine.dialect.name == "postgresql":
            from sqlalchemy.dialects.postgresql import insert as postgres_insert

            return postgres_insert(table).on_conflict_do_nothing()
        from sqlalchemy.dialects.sqlite import insert as sqlite_insert

        return sqlite_insert(table).on_conflict_do_nothing()

    def _check_schema(self, *, create: bool) -> None:
        tables = set(sa.inspect(self._engine).get_table_names())
        if meta.name not in tables:
            if tables:
                raise BankError(f"{self.name}: a database, but not a bank; name another file")
            if not create:
                raise BankError(f"{self.name}: an empty database, not a bank; name another file")
            self._make_schema()
        with self._engine.connect() as connection:
            query = sa.select(meta.c.value).where(meta.c.name == "schema_version")
            version = str(connection.scalar(query))
        if not version.isdigit():
            raise BankError(f"{self.name}: a bank without a schema version; restore it from a copy")
        if int(version) > SCHEMA_VERSION:
            raise BankError(
                f"{self.name}: a bank of schema {version}, newer than this tunebank's "
                f"{SCHEMA_VERSION}; upgrade tunebank (pip install -U tunebank)"
            )
        if int(version) < SCHEMA_VERSION:
            raise BankError(
                f"{self.name}: a bank of the older schema {version}; run `tunebank bank upgrade`"
            )

    def _make_schema(self) -> None:
        with self._engine.begin() as connection:
            if self._engine.dialect.name == "sqlite":
                # Two processes may make the bank at once: the second waits, and finds it made.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            metadata.create_all(connection)
            row = {"name": "schema_version", "value": str(SCHEMA_VERSION)}
            connection.execute(self._insert(meta), [row])

    @contextlib.contextmanager
    def _errors(self, what: str, remedy: str = "see `tunebank doctor`") -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, OSError, ImportError, ValueError) as error:
            original = getattr(error, "orig", None) or error
            reason = " ".join(str(original).split())[:200]
            remedies = (advice for sign, advice in _REMEDIES if sign in reason)
            raise BankError(
                f"{self.name}: {what} as a bank: {reason}; {next(remedies, remedy)}"
            ) from error


def _winners(count: int, conditions: Sequence[Any], *, what: str) -> Any:
    """Query of the ids of the first `count` records of each kernel and device."""
    if count < 1:
        raise UsageError(f"{what}={count}: at least one record of each kernel; give 1 or more")
    place = sa.func.row_number().over(
        partition_by=(records.c.kernel_key, records.c.device), order_by=_FASTEST_FIRST
    )
    ranked = (
        sa.select(records.c.id, place.label("place"))
        .join(kernels, records.c.kernel_key == kernels.c.key)
        .where(*conditions)
        .subquery()
    )
    return sa.select(ranked.c.id).where(ranked.c.place <= count)


def _kernel_row(record: Record) -> dict[str, Any]:
    return {
        "key": record.kernel_key,
        "class_key": record.class_key,
        "anchor_key": record.anchor_key,
        "name": record.kernel_name,
        "flops": record.flops,
        "ir": compress(record.kernel_ir),
    }


def _record_row(record: Record) -> dict[str, Any]:
    computed = ("samples_us", "trace")
    row = {c.name: getattr(record, c.name) for c in records.columns if c.name not in computed}
    row["samples_us"] = json.dumps([round(sample, 3) for sample in record.samples_us])
    row["trace"] = compress(record.trace)
    return row
