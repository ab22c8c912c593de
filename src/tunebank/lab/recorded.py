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


def recorded_plan(model: Model, bank: Bank, device: Device, *, source: str) -> Plan:
    """For each kernel the fastest of its own trials and its default schedule.

    A kernel without a trial has its default schedule: more than TVM would give it, a bare loop
    nest. So the auto-scheduler has the same floor as reuse.
    """
    own = {kernel.key: _own(kernel, bank, device, source) for kernel in model.kernels}
    return plan_of(model, device, own)


def plan_of(
    model: Model, device: Device, records: Mapping[str, Sequence[Record]], *, seconds: float = 0.0
) -> Plan:
    """The plan that gives each kernel the first of its records that applies, else its default.

    Args:
        model: the model.
        device: what to compile for.
        records: by kernel key, records of that very kernel, fastest first.
        seconds: search time that they took.
    """
    choices = {
        kernel.key: _choice(kernel, records.get(kernel.key, ()), Space(kernel, device))
        for kernel in model.kernels
    }
    return Plan(choices, search_seconds=seconds)


def trials_of(model: Model, bank: Bank, device: Device, *, source: str) -> Trials:
    """Counts the trials of a model's kernels.

    `least` is over the kernels that take 95 % of the time under their best schedules, and have a
    reduction: the space of the others is a handful of programs.
    """
    counts: Counter[str] = Counter()
    times: dict[str, float] = {}
    for kernel in model.kernels:
        records = _own(kernel, bank, device, source)
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


def untuned_latencies(model: Model, bank: Bank, device: Device, *, source: str) -> dict[str, float]:
    """By kernel key, the latency under the fastest default schedule that was measured."""
    return {
        kernel.key: record.latency_us
        for kernel in model.kernels
        for record in reversed(_own(kernel, bank, device, source))
        if record.origin == "default" and record.latency_us is not None
    }


def _own(kernel: Kernel, bank: Bank, device: Device, source: str) -> list[Record]:
    """What auto-scheduling found for the kernel on this device, fastest first.

    A bank may also hold what reuse found for the model, other algorithms among it.
    """
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
