"""A record: one schedule measured on one kernel."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

Status = Literal["ok", "build_failed", "run_failed", "timeout", "crashed", "wrong"]
Origin = Literal["tune", "transfer", "refine", "default", "algorithm", "import"]

_ID_LENGTH = 32


@dataclass(frozen=True)
class Record:
    """A schedule, the kernel that it was measured on, and the measurement.

    Attributes:
        kernel_key: identity of the kernel.
        class_key: identity of the kernel's class.
        anchor_key: identity of its anchor operation; "" if it has none.
        kernel_name: name to show.
        kernel_ir: the kernel's program as TVM's JSON text.
        flops: floating-point operations of one call.
        trace: the schedule, a canonical trace.
        status: `ok`, or what went wrong.
        latency_us: median latency in microseconds; None if it failed.
        samples_us: latencies of the single runs.
        source: name of the model that it was tuned for.
        origin: what proposed the schedule; `algorithm` is another way to compute the same,
            Winograd's.
        target: canonical JSON text of the TVM target.
        device: fingerprint of the device.
        threads: threads that it ran on.
        tvm_version: version that measured it, or `unknown`.
        created_at: ISO 8601 time, UTC.
        error: one line, if something went wrong.
        donor_id: record that the schedule was adapted from.

    Raises:
        ValueError: a status that is not known, or a latency that does not fit it.
    """

    kernel_key: str
    class_key: str
    anchor_key: str
    kernel_name: str
    kernel_ir: str
    flops: float
    trace: str
    status: Status
    latency_us: float | None
    samples_us: tuple[float, ...]
    source: str
    origin: Origin
    target: str
    device: str
    threads: int
    tvm_version: str
    created_at: str
    error: str | None = None
    donor_id: str | None = None

    def __post_init__(self) -> None:
        if self.status not in get_args(Status):
            raise ValueError(f"unknown status {self.status!r}")
        if self.origin not in get_args(Origin):
            raise ValueError(f"unknown origin {self.origin!r}")
        if (self.status == "ok") != (self.latency_us is not None):
            raise ValueError(f"status {self.status!r} with latency {self.latency_us}")
        if self.latency_us is not None and not 0 < self.latency_us < math.inf:
            raise ValueError(f"latency of {self.latency_us} us")

    @cached_property
    def id(self) -> str:
        """Identity: the same schedule of the same kernel, device and source is one record."""
        parts = (self.kernel_key, self.trace, self.target, self.device, self.source)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:_ID_LENGTH]

    @property
    def gflops(self) -> float | None:
        """Rate in billions of floating-point operations per second; None if it failed."""
        return self.flops / self.latency_us / 1e3 if self.latency_us else None
