"""Measurements as records."""

from __future__ import annotations

from datetime import datetime, timezone

from tunebank import _tvm
from tunebank.bank import Bank, Record
from tunebank.device import Device
from tunebank.measure import Measurement
from tunebank.schedule import Scheduled
from tunebank.search.plan import Plan


def to_record(
    scheduled: Scheduled,
    result: Measurement,
    device: Device,
    *,
    source: str,
    origin: str,
    donor_id: str | None = None,
) -> Record:
    """The record of a measurement; failures are records too."""
    kernel = scheduled.kernel
    return Record(
        kernel_key=kernel.key,
        class_key=kernel.class_key,
        anchor_key=kernel.anchor_key,
        kernel_name=kernel.name,
        kernel_ir=kernel.ir,
        flops=kernel.flops,
        trace=scheduled.trace.text,
        status=result.status,
        error=result.error,
        latency_us=result.latency_us,
        samples_us=result.samples_us if result.status == "ok" else (),
        source=source,
        origin=origin,  # type: ignore[arg-type]
        donor_id=donor_id,
        target=device.target,
        device=device.fingerprint,
        threads=device.threads,
        tvm_version=_tvm.TVM_VERSION,
        created_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def deposit_given_up(plan: Plan, bank: Bank, device: Device, *, source: str) -> int:
    """Deposits what failed when a plan was compiled; returns how many records are new."""
    records = [
        to_record(
            one.scheduled,
            one.result,
            device,
            source=source,
            origin=one.origin,
            donor_id=one.record_id or None,
        )
        for choice in plan.choices.values()
        for one in choice.given_up
    ]
    return bank.deposit(records) if records else 0
