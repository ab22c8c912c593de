"""Plans made of a bank's own records of a model: what full auto-scheduling came to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tunebank.bank import Bank, Record
from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.model import Model
from tunebank.schedule import IllegalScheduleError, Space, Trace, default_schedule
from tunebank.search import Choice, Plan

_AUTO_SCHEDULED = ("tune", "import", "default")


@dataclass(frozen=True)
class Trials:
    """How thoroughly a model was tuned.

    Attributes:
        total: measured trials of all its kernels.
        least: of the kernels that take most of the time, the least number; 0 if one had none.
    """

    total: int
    least: int


Records = Mapping[str, Sequence[Record]]
"""Records by the key of their kernel, fastest first."""


def own_records(model: Model, bank: Bank, device: Device, *, source: str) -> Records:
    """What auto-scheduling found for each of a model's kernels on this device.

    A bank may also hold what reuse found for the model, other algorithms among it. A plan of these
    (`plan_of`) is full auto-scheduling; it has the same floor as reuse, the default schedules.
    """
    return {kernel.key: _own(kernel, bank, device, source) for kernel in model.kernels}


def plan_of(model: Model, device: Device, records: Records, *, seconds: float = 0.0) -> Plan:
    """The plan that gives each kernel the first of its records that applies, else its default.

    Args:
        model: the model.
        device: what to compile for.
        records: of those very kernels.
        seconds: search time that they took.
    """
    choices = {
        kernel.key: _choice(kernel, records.get(kernel.key, ()), Space(kernel, device))
        for kernel in model.kernels
    }
    return Plan(choices, search_seconds=seconds)


def trials_of(model: Model, own: Records) -> Trials:
    """Counts the trials among a model's own records.

    `least` is over the kernels that take 95 % of the time under their best schedules, and have a
    reduction: the space of the others is a handful of programs.
    """
    counts: Counter[str] = Counter()
    times: dict[str, float] = {}
    for kernel in model.kernels:
        records = own[kernel.key]
        counts[kernel.key] = sum(record.origin == "tune" for record in records)
        best = min((r.latency_us for r in records if r.latency_us is not None), default=0.0)
        if kernel.anchor is not None:
            times[kernel.key] = kernel.weight * best
    heavy, covered, total = [], 0.0, sum(times.values())
    for key, time_us in sorted(times.items(), key=lambda item: -item[1]):
        if covered > 0.95 * total:
            break
        heavy.append(key)
        covered += time_us
    return Trials(sum(counts.values()), min((counts[key] for key in heavy), default=0))


def untuned_latencies(own: Records) -> dict[str, float]:
    """By kernel key, the latency under the fastest default schedule that was measured."""
    return {
        key: record.latency_us
        for key, records in own.items()
        for record in reversed(records)
        if record.origin == "default" and record.latency_us is not None
    }


def _own(kernel: Kernel, bank: Bank, device: Device, source: str) -> list[Record]:
    records = bank.find(kernel_key=kernel.key, source=source, status=None)
    return [
        record
        for record in records
        if record.device == device.fingerprint and record.origin in _AUTO_SCHEDULED
    ]


def _choice(kernel: Kernel, records: Sequence[Record], space: Space) -> Choice:
    untuned = [record.latency_us for record in records if record.origin == "default"]
    untuned_us = untuned[0] if untuned else None
    for record in records:
        if record.latency_us is None:
            break
        try:
            scheduled = space.apply(Trace.from_text(record.trace))
        except (IllegalScheduleError, ValueError):
            continue
        return Choice(
            kernel,
            scheduled,
            origin="default" if record.origin == "default" else "transfer",
            match="exact",
            source=record.source,
            record_id=record.id,
            latency_us=record.latency_us,
            untuned_us=untuned_us,
            measured=len(records),
        )
    return Choice(kernel, default_schedule(space), origin="default")
