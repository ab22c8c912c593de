"""Several banks as one, and which ones are used."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Any

from tunebank.bank.bank import Bank, BankStats
from tunebank.bank.record import Record
from tunebank.bank.sql import SqlBank

ENVIRONMENT_VARIABLE = "TUNEBANK_BANK"


class BankChain:
    """Several banks searched in order; deposits go to the first. See `Bank`."""

    def __init__(self, banks: Sequence[Bank]) -> None:
        if not banks:
            raise ValueError("a chain of no banks")
        self._banks = list(banks)

    def __enter__(self) -> BankChain:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def deposit(self, records: Iterable[Record]) -> int:
        """See `Bank.deposit`: into the first bank."""
        return self._banks[0].deposit(records)

    def get(self, record_id: str) -> Record | None:
        """See `Bank.get`."""
        found = (bank.get(record_id) for bank in self._banks)
        return next((record for record in found if record is not None), None)

    def find(self, **conditions: Any) -> list[Record]:
        """See `Bank.find`; a record that several banks hold comes once."""
        found: dict[str, Record] = {}
        for bank in self._banks:
            for record in bank.find(**conditions):
                found.setdefault(record.id, record)
        inf = float("inf")
        ordered = sorted(found.values(), key=lambda r: (r.latency_us or inf, r.id))
        return ordered[: conditions.get("limit")]

    def stats(self) -> BankStats:
        """See `Bank.stats`: of the first bank."""
        return self._banks[0].stats()

    def prune(self, *, keep: int) -> int:
        """See `Bank.prune`: the first bank."""
        return self._banks[0].prune(keep=keep)

    def close(self) -> None:
        """See `Bank.close`."""
        for bank in self._banks:
            bank.close()


def default_url() -> str:
    """The bank that is used when none is named."""
    import platformdirs

    given = os.environ.get(ENVIRONMENT_VARIABLE)
    return given or str(Path(platformdirs.user_data_dir("tunebank")) / "bank.db")


def shipped_banks() -> list[Path]:
    """The banks inside the package."""
    folder = resources.files("tunebank.bank") / "data"
    if not folder.is_dir():
        return []
    return sorted(Path(str(file)) for file in folder.iterdir() if file.name.endswith(".db"))


def open_banks(urls: Sequence[str] = (), *, include_shipped: bool = True) -> BankChain:
    """The named banks, or the default one, and after them those inside the package.

    Args:
        urls: SQLAlchemy URLs or paths; the first is made if it is not there.
        include_shipped: whether the package's own banks are searched too.

    Raises:
        BankError: a bank can't be opened.
    """
    banks: list[Bank] = []
    for index, url in enumerate(urls or [default_url()]):
        banks.append(SqlBank(url, create=index == 0))
    if include_shipped:
        banks.extend(SqlBank(str(path), readonly=True) for path in shipped_banks())
    return BankChain(banks)
