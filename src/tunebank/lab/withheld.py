"""A bank of which some sources can't be seen: how an experiment leaves a model out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from tunebank.bank import Bank, BankStats, Record


class Withheld:
    """A bank without the records of some models; only read. See `Bank`.

    Whatever asks for records asks here, so that no path leads around it. What is deposited is
    dropped: an experiment leaves the bank as it was.

    Args:
        bank: the bank.
        sources: the models.
        cost_model: one that was trained without these models' records; None for none.
    """

    def __init__(
        self, bank: Bank, sources: Collection[str], *, cost_model: str | None = None
    ) -> None:
        self._bank = bank
        self._cost_models = [] if cost_model is None else [cost_model]
        self.withheld = frozenset(sources)

    def deposit(self, records: Iterable[Record]) -> int:
        """Takes nothing."""
        return 0

    def get(self, record_id: str) -> Record | None:
        """See `Bank.get`."""
        record = self._bank.get(record_id)
        return None if record is None or record.source in self.withheld else record

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
        return self._bank.find(
            kernel_key=kernel_key,
            class_key=class_key,
            anchor_key=anchor_key,
            source=source,
            exclude_sources=sorted({*exclude_sources, *self.withheld}),
            status=status,
            limit=limit,
            best_per_kernel=best_per_kernel,
        )

    def stats(self) -> BankStats:
        """See `Bank.stats`: of the whole bank."""
        return self._bank.stats()

    def sources(self) -> list[str]:
        """See `Bank.sources`."""
        return [name for name in self._bank.sources() if name not in self.withheld]

    def cost_models(self) -> list[str]:
        """See `Bank.cost_models`: the one that it was given; those of the bank have seen all."""
        return self._cost_models

    def set_cost_model(self, text: str) -> None:
        """Takes nothing."""

    def prune(self, *, keep: int) -> int:
        """Drops nothing."""
        return 0

    def close(self) -> None:
        """See `Bank.close`."""
        self._bank.close()
