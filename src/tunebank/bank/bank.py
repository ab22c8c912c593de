"""The contract of a bank."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tunebank.bank.record import Record


@dataclass(frozen=True)
class BankStats:
    """What a bank holds.

    Attributes:
        kernels: distinct kernels.
        classes: distinct kernel classes.
        records: records by status.
        sources: records by model.
        devices: records by device fingerprint.
        size_bytes: size on disk, its write-ahead log included; None if it is not a file.
        provenance: of a distilled bank, what it was made of; empty for others.
    """

    kernels: int
    classes: int
    records: dict[str, int]
    sources: dict[str, int]
    devices: dict[str, int]
    size_bytes: int | None
    provenance: Mapping[str, Any] = field(default_factory=dict)


class Bank(Protocol):
    """A store of records.

    Records are values: what a bank returns is the caller's, and changing a bank goes through
    its methods alone. Several processes may use one bank at once, each with its own `Bank`;
    one `Bank` may not be shared between threads.

    Every method raises `BankError` for a store that can't be reached, read or written.
    """

    def deposit(self, records: Iterable[Record]) -> int:
        """Adds records: all or none, and durable when this returns.

        A record that the bank has (the same `id`) is left as it is.

        Returns:
            the number of records that were new.
        """
        ...

    def get(self, record_id: str) -> Record | None:
        """The record of that id, or of the one id that starts so."""
        ...

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
        """Records that meet all conditions, fastest first, failures last.

        Args:
            kernel_key: only records of this kernel.
            class_key: only records of kernels of this class.
            anchor_key: only records of kernels with this anchor operation.
            source: only records tuned for this model.
            exclude_sources: no records tuned for these models.
            status: only records of this status; None for any.
            limit: at most so many.
            best_per_kernel: of each kernel and device the fastest so many alone, and no
                failures; what is left out is not read, so that a large bank stays quick.

        Raises:
            UsageError: `best_per_kernel` is less than 1.
        """
        ...

    def stats(self) -> BankStats:
        """What the bank holds."""
        ...

    def sources(self) -> list[str]:
        """Names of the models that records were tuned for, sorted."""
        ...

    def cost_models(self) -> list[str]:
        """The cost models that were trained on it, as text; see `tunebank.transfer.pretrained`.

        A bank has one or none, a chain of banks those of its banks.
        """
        ...

    def set_cost_model(self, text: str) -> None:
        """Keeps a cost model, in place of the one that it had."""
        ...

    def prune(self, *, keep: int) -> int:
        """Drops all but the fastest `keep` records of each kernel and device.

        Those of wrong numbers stay: they keep their schedules from being chosen.

        Returns:
            the number of records dropped.

        Raises:
            UsageError: `keep` is less than 1; nothing is dropped.
        """
        ...

    def close(self) -> None:
        """Frees the connection. The bank can't be used afterwards."""
        ...
