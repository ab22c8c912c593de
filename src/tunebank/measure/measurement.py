"""What came of measuring a candidate, and the contract of whoever measures."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from tunebank.schedule import Scheduled

Status = Literal["ok", "build_failed", "run_failed", "timeout", "crashed", "wrong"]


@dataclass(frozen=True)
class Measurement:
    """What came of measuring one candidate.

    Attributes:
        status: `ok`, or what went wrong.
        samples_us: latencies of single runs, microseconds.
        checked: whether its numbers were compared with the reference's and agreed.
        error: one line, if something went wrong.
        stage_seconds: seconds by stage (build, lower, codegen, run, check).
    """

    status: Status
    samples_us: tuple[float, ...] = ()
    checked: bool = False
    error: str | None = None
    stage_seconds: dict[str, float] = field(default_factory=dict, compare=False)

    @property
    def latency_us(self) -> float | None:
        """Median latency in microseconds; None if the measurement failed."""
        return statistics.median(self.samples_us) if self.status == "ok" else None


class Measurer(Protocol):
    """Measures candidates. One caller at a time."""

    def measure(
        self, candidates: Sequence[Scheduled], *, best_us: dict[str, float]
    ) -> list[Measurement]:
        """Measures a batch, one measurement per candidate in order.

        Args:
            candidates: programs to measure.
            best_us: by kernel key, the best latency known; decides who is a contender.
        """
        ...

    def close(self) -> None:
        """Frees processes. The measurer can't be used afterwards."""
        ...
