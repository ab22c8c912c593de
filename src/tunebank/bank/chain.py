"""Several banks as one, and which ones are used."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

from tunebank.bank.bank import Bank, BankStats
from tunebank.bank.location import sqlite_path
from tunebank.bank.record import Record
from tunebank.bank.shipped import shipped_banks
from tunebank.bank.sql import SqlBank

ENVIRONMENT_VARIABLE = "TUNEBANK_BANK"
_IN_MEMORY = "sqlite://"


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
        """See `Bank.find`; a record that several banks hold comes once."""
        found: dict[str, Record] = {}
        for bank in self._banks:
            for record in bank.find(
                kernel_key=kernel_key,
                class_key=class_key,
                anchor_key=anchor_key,
                source=source,
                exclude_sources=exclude_sources,
                status=status,
                limit=limit,
                best_per_kernel=best_per_kernel,
            ):
                found.setdefault(record.id, record)
        ordered = sorted(found.values(), key=lambda r: (r.latency_us or math.inf, r.id))
        return _best_of_kernels(ordered, best_per_kernel)[:limit]

    def stats(self) -> BankStats:
        """See `Bank.stats`: of the first bank."""
        return self._banks[0].stats()

    def sources(self) -> list[str]:
        """See `Bank.sources`: of all banks."""
        return sorted({name for bank in self._banks for name in bank.sources()})

    def cost_models(self) -> list[str]:
        """See `Bank.cost_models`: of all banks."""
        return [text for bank in self._banks for text in bank.cost_models()]

    def set_cost_model(self, text: str) -> None:
        """See `Bank.set_cost_model`: in the first bank."""
        self._banks[0].set_cost_model(text)

    def prune(self, *, keep: int) -> int:
        """See `Bank.prune`: the first bank."""
        return self._banks[0].prune(keep=keep)

    def close(self) -> None:
        """See `Bank.close`."""
        for bank in self._banks:
            bank.close()


def _best_of_kernels(ordered: list[Record], count: int | None) -> list[Record]:
    """The first so many records of each kernel and device."""
    if count is None:
        return ordered
    taken: Counter[tuple[str, str]] = Counter()
    kept = []
    for record in ordered:
        group = (record.kernel_key, record.device)
        taken[group] += 1
        if taken[group] <= count:
            kept.append(record)
    return kept


def default_url() -> str:
    """The bank that is used when none is named."""
    import platformdirs

    given = os.environ.get(ENVIRONMENT_VARIABLE)
    return given or str(Path(platformdirs.user_data_dir("tunebank")) / "bank.db")


def open_banks(
    urls: Sequence[str] = (),
    *,
    include_shipped: bool = True,
    create: bool = True,
    vector_lanes: int | None = None,
) -> BankChain:
    """The named banks, or the default one, and after them those inside the package.

    Args:
        urls: SQLAlchemy URLs or paths; the first is made if it is not there, the others are
            only read, and may be where this process can't write.
        include_shipped: whether the package's own banks are searched too.
        create: whether the first is made if it is not there. If not, a default bank that is
            not there counts as empty, and a named one is an error.
        vector_lanes: of the CPU that is compiled for: which of the package's banks to search;
            None searches all.

    Raises:
        BankError: a bank can't be opened.
    """
    banks: list[Bank] = []
    try:
        for index, url in enumerate(urls or [_default_to_open(create)]):
            only_read = index > 0 and not _can_write(url)
            is_made = (create and index == 0) or url == _IN_MEMORY
            banks.append(SqlBank(url, create=is_made, readonly=only_read))
        if include_shipped:
            banks.extend(SqlBank(str(path), readonly=True) for path in shipped_banks(vector_lanes))
    except BaseException:
        for bank in banks:
            bank.close()
        raise
    return BankChain(banks)


def _default_to_open(create: bool) -> str:
    """The default bank, or one in memory in its stead."""
    url = default_url()
    path = sqlite_path(url)
    return url if create or path is None or path.exists() else _IN_MEMORY


def _can_write(url: str) -> bool:
    """Whether SQLite may lock the file and keep its log beside it."""
    path = sqlite_path(url)
    if path is None:
        return True
    effective = os.access in os.supports_effective_ids
    return all(
        os.access(place, os.W_OK, effective_ids=effective)
        for place in (path, path.absolute().parent)
    )
