"""A bank made small: of each kernel the few records worth keeping, and where they are from.

The fastest records of a kernel are mostly variations of one: an auto-scheduler mutates its best. A
donor is worth more if it differs in kind. So of those that share their innermost tiles, the tiles
that decide about vectors and registers, only the fastest is kept, and none that is much slower than
the best.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tunebank._version import __version__
from tunebank.bank.bank import Bank
from tunebank.bank.record import Record
from tunebank.bank.sql import SqlBank
from tunebank.errors import UsageError

_SLACK = 1.6
"""A record this many times slower than its kernel's best is not kept."""


def distil(bank: Bank, path: Path, *, keep: int) -> dict[str, Any]:
    """Writes a small bank, whole or not at all; the cost model of the large one goes with it.

    Args:
        bank: where the records are.
        path: the new bank's file; nothing may be there.
        keep: records of each kernel and device at most.

    Returns:
        its provenance: trials by model, devices, versions, dates; the new bank keeps it too.

    Raises:
        UsageError: the file is there, or `keep` is less than 1.
        BankError: the bank can't be read, or the file not be written.
    """
    if keep < 1:
        raise UsageError(f"keep={keep}: at least one record of each kernel; give 1 or more")
    if path.exists():
        raise UsageError(f"{path}: is there already; name a new file")
    read = bank.find(status=None)
    kept = list(_worth_keeping(read, keep))
    provenance = _provenance(read, kept)
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    try:
        with SqlBank(str(partial)) as small:
            small.deposit(kept)
            small.set_provenance(json.dumps(provenance))
            for text in bank.cost_models()[:1]:
                small.set_cost_model(text)
            small.compact()
        partial.replace(path)
    finally:
        for leftover in path.parent.glob(partial.name + "*"):
            leftover.unlink()
    return provenance


def _worth_keeping(records: Iterable[Record], keep: int) -> Iterator[Record]:
    """Of records that come fastest first, those to keep."""
    best: dict[tuple[str, str], float] = {}
    taken: Counter[tuple[str, str]] = Counter()
    kinds: set[tuple[str, str, Any]] = set()
    for record in records:
        if record.latency_us is None or record.origin == "default":
            continue  # the target has a default schedule of its own
        group = (record.kernel_key, record.device)
        kind = (*group, _inner_tiles(record.trace))
        is_slow = record.latency_us > _SLACK * best.setdefault(group, record.latency_us)
        if is_slow or kind in kinds or taken[group] >= keep:
            continue
        kinds.add(kind)
        taken[group] += 1
        yield record


def _inner_tiles(trace: str) -> Any:
    """The innermost factor of each tiling; of a program of its own, which needs none, its name."""
    steps, decisions = json.loads(trace)
    factors = [(index, value[-1]) for index, value in decisions if isinstance(value, list)]
    return tuple(factors) or (steps[0][0] if len(steps) == 1 else trace)


def _provenance(read: list[Record], kept: list[Record]) -> dict[str, Any]:
    dates = sorted(record.created_at[:10] for record in read)
    return {
        "made_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "tunebank": __version__,
        "trials": len(read),
        "records": len(kept),
        "kernels": len({record.kernel_key for record in kept}),
        "trials_by_source": dict(sorted(Counter(record.source for record in read).items())),
        "devices": sorted({record.device for record in read}),
        "targets": sorted({record.target for record in read}),
        "tvm_versions": sorted({record.tvm_version for record in read}),
        "first_date": dates[0] if dates else "",
        "last_date": dates[-1] if dates else "",
    }
