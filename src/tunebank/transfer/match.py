"""Which records of the bank can serve a kernel, and how they relate to it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from tunebank.bank import Bank, Record
from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.schedule import Trace
from tunebank.schedule.winograd import KIND as WINOGRAD
from tunebank.schedule.winograd import is_winograd

Level = Literal["exact", "class", "anchor"]

LEVELS: tuple[Level, ...] = ("exact", "class", "anchor")
_KEYS = {"exact": "kernel_key", "class": "class_key", "anchor": "anchor_key"}
PER_DONOR_KERNEL = 4
"""Records taken of one donor kernel: its best few differ in kind, the rest are near copies."""
_READ_PER_DONOR_KERNEL = 16
"""More are read: a schedule that several models have is several records, and behind Winograd's the
best direct one is wanted."""


@dataclass(frozen=True)
class Donor:
    """A record whose schedule is tried on another kernel.

    Attributes:
        record: the record.
        level: how the record's kernel relates to the target: the very kernel, its class, or
            the same anchor operation under another prologue or epilogue.
        standing: latency of the best record of the same kernel and device, relative to this
            one: 1 for the best, less for the others.
        over_direct: of a schedule of Winograd's, how many times faster it is than the best direct
            one of the same kernel and device; None if none is known.
    """

    record: Record
    level: Level
    standing: float
    over_direct: float | None = None

    def measured_on(self, device: Device) -> bool:
        """Whether its latency is that of the very kernel on this device: no estimate is needed."""
        return self.level == LEVELS[0] and self.record.device == device.fingerprint


class Matcher:
    """Finds the donors of many kernels; what kernels of one class have in common is read once.

    Args:
        bank: where to look.
        exclude_sources: models whose records are hidden.
    """

    def __init__(self, bank: Bank, *, exclude_sources: Collection[str] = ()) -> None:
        self._bank = bank
        self._excluded = tuple(exclude_sources)
        self._found: dict[tuple[Level, str], list[Donor]] = {}

    def donors(self, kernel: Kernel) -> list[Donor]:
        """The donors of a kernel, nearest level first, each kernel's best records first."""
        found: dict[str, Donor] = {}
        for level, key in zip(LEVELS, _keys(kernel), strict=True):
            for donor in self._donors(level, key):
                found.setdefault(donor.record.id, donor)
        return list(found.values())

    def known_wrong(self, kernel: Kernel, device: Device) -> frozenset[object]:
        """The identities of the schedules that gave wrong numbers for this very kernel.

        Args:
            kernel: the kernel.
            device: on which; the machine code of others may be right.
        """
        records = self._bank.find(
            kernel_key=kernel.key, status="wrong", exclude_sources=self._excluded
        )
        return frozenset(
            Trace.from_text(record.trace).identity
            for record in records
            if record.device == device.fingerprint
        )

    def _donors(self, level: Level, key: str) -> list[Donor]:
        if not key:
            return []  # without a reduction there is no anchor
        if (level, key) not in self._found:
            conditions: dict[str, Any] = {_KEYS[level]: key, "exclude_sources": self._excluded}
            records = self._bank.find(**conditions, best_per_kernel=_READ_PER_DONOR_KERNEL)
            self._found[level, key] = _ranked(records, level)
        return self._found[level, key]


def match(kernel: Kernel, bank: Bank, *, exclude_sources: Collection[str] = ()) -> list[Donor]:
    """The donors of one kernel; see `Matcher`."""
    return Matcher(bank, exclude_sources=exclude_sources).donors(kernel)


def _keys(kernel: Kernel) -> tuple[str, str, str]:
    return kernel.key, kernel.class_key, kernel.anchor_key


def _ranked(records: Iterable[Record], level: Level) -> list[Donor]:
    """The records as donors, with their standing among those of the same kernel and device."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        if record.latency_us is not None:
            groups.setdefault((record.kernel_key, record.device), []).append(record)
    donors: list[Donor] = []
    for group in groups.values():
        group.sort(key=_latency)
        donors.extend(_donor(record, level, group) for record in _few(group))
    return donors


def _donor(record: Record, level: Level, group: list[Record]) -> Donor:
    standing = _latency(group[0]) / _latency(record)
    if not _is_winograd(record):
        return Donor(record, level, standing)
    direct = next((one for one in group if not _is_winograd(one)), None)
    gain = _latency(direct) / _latency(record) if direct is not None else None
    return Donor(record, level, standing, over_direct=gain)


def _few(group: list[Record]) -> list[Record]:
    """The first few of a kernel's records: each schedule once, of Winograd's the best alone."""
    chosen: dict[str, Record] = {}
    for record in group:
        if len(chosen) == PER_DONOR_KERNEL:
            break
        kind = WINOGRAD if _is_winograd(record) else record.trace
        chosen.setdefault(kind, record)
    return list(chosen.values())


def _is_winograd(record: Record) -> bool:
    return is_winograd(Trace.from_text(record.trace))


def _latency(record: Record) -> float:
    assert record.latency_us is not None
    return record.latency_us
