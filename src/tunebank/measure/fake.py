"""A measurer for tests of the search: nothing is built, latencies follow from a function."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence

from tunebank.measure.measurement import Measurement, Status
from tunebank.schedule import Scheduled

_RUNS = 3


def hashed_latency_us(candidate: Scheduled) -> float:
    """A latency from 10 to 1000 µs that the kernel and the schedule alone decide."""
    text = f"{candidate.kernel.key} {candidate.trace.text}"
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
    return 10.0 + number % 99_000 / 100


class FakeMeasurer:
    """A deterministic `Measurer`; it remembers what it was asked.

    Args:
        latency_us: latency of a candidate, in microseconds.
        fails: how a candidate fails; None for one that does not. A `wrong` one is only found
            out where a real measurer checks numbers, and fails here at once.
        seconds_per_candidate: time that a measurement takes; it really passes.
        interrupted_after: batches after which the next is interrupted; None for never.

    Attributes:
        batches: the candidates of each call in order.
        best_us: what each call was given as the best latencies known.
        closed: whether `close` was called.
    """

    def __init__(
        self,
        latency_us: Callable[[Scheduled], float] = hashed_latency_us,
        *,
        fails: Callable[[Scheduled], Status | None] = lambda candidate: None,
        seconds_per_candidate: float = 0.0,
        interrupted_after: int | None = None,
    ) -> None:
        self._latency_us = latency_us
        self._fails = fails
        self._seconds = seconds_per_candidate
        self._interrupted_after = interrupted_after
        self.batches: list[tuple[Scheduled, ...]] = []
        self.best_us: list[dict[str, float]] = []
        self.closed = False

    @property
    def measured(self) -> list[Scheduled]:
        """All candidates measured so far, in order."""
        return [candidate for batch in self.batches for candidate in batch]

    def measure(
        self, candidates: Sequence[Scheduled], *, best_us: dict[str, float]
    ) -> list[Measurement]:
        """See `Measurer.measure`; every latency counts as checked.

        Raises:
            RuntimeError: the measurer was closed.
            KeyboardInterrupt: after as many batches as it was told.
        """
        if self.closed:
            raise RuntimeError("measuring after close")
        if len(self.batches) == self._interrupted_after:
            raise KeyboardInterrupt
        self.batches.append(tuple(candidates))
        self.best_us.append(dict(best_us))
        time.sleep(self._seconds * len(candidates))
        return [self._measurement(candidate) for candidate in candidates]

    def close(self) -> None:
        """See `Measurer.close`."""
        self.closed = True

    def _measurement(self, candidate: Scheduled) -> Measurement:
        status = self._fails(candidate)
        if status is not None:
            return Measurement(status, error=f"{status}, as the test wants it")
        return Measurement("ok", (self._latency_us(candidate),) * _RUNS, checked=True)
