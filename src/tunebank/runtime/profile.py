"""Where an artifact's time goes: each kernel timed in the model, between its real neighbours.

The virtual machine calls an instrument before and after each call. The clock is read at the end of
the one and at the start of the other, so that what the instrument itself takes lies outside. It
disturbs caches a little; what a run takes without it is measured too, and the difference to
the sum of the calls is what lies between them: allocation, the machine's own instructions, waking
threads.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunebank.runtime.session import Session

_WARM_UP_RUNS = 3
_RUNS = 30
_OWN_PREFIX = "vm."


@dataclass(frozen=True)
class CallProfile:
    """The calls of one program.

    Attributes:
        symbol: what it is called in the library.
        calls: calls in a run.
        total_us: what they take together, median over runs, microseconds.
    """

    symbol: str
    calls: int
    total_us: float


@dataclass(frozen=True)
class Profile:
    """A profile of an artifact.

    Attributes:
        run_us: what a run takes without the instrument, median, microseconds.
        programs: its programs, those that take the most time first.
    """

    run_us: float
    programs: tuple[CallProfile, ...]

    @property
    def between_us(self) -> float:
        """What lies between the calls: what a run takes less what they take."""
        return self.run_us - sum(program.total_us for program in self.programs)


def profile(session: Session, feed: Mapping[str, Any], *, runs: int = _RUNS) -> Profile:
    """Profiles an artifact on inputs.

    Args:
        session: the artifact.
        feed: by input name an array.
        runs: how often it is run with the instrument, and how often without.
    """
    plain = []
    for index in range(_WARM_UP_RUNS + runs):
        start = time.perf_counter()
        session.run(None, feed)
        if index >= _WARM_UP_RUNS:
            plain.append(1e6 * (time.perf_counter() - start))
    clock = CallClock()
    with session.instrumented(clock.on_call):
        for _ in range(_WARM_UP_RUNS + runs):
            clock.begin_run()
            session.run(None, feed)
    return Profile(statistics.median(plain), clock.programs(skip=_WARM_UP_RUNS))


class CallClock:
    """An instrument that sums up, for each run, what the calls of each program take."""

    def __init__(self) -> None:
        self._runs: list[dict[str, float]] = []
        self._calls: dict[str, int] = {}
        self._start = 0.0

    def begin_run(self) -> None:
        """A run begins."""
        self._runs.append({})
        self._calls = {}

    def on_call(self, func: Any, symbol: str, before: bool, result: Any, *args: Any) -> int:
        """The instrument; see TVM's `VirtualMachine.set_instrument`. Returns: go on."""
        if before:
            self._start = time.perf_counter()
            return 0
        end = time.perf_counter()
        if not symbol.startswith(_OWN_PREFIX):
            run = self._runs[-1]
            run[symbol] = run.get(symbol, 0.0) + 1e6 * (end - self._start)
            self._calls[symbol] = self._calls.get(symbol, 0) + 1
        return 0

    def programs(self, *, skip: int) -> tuple[CallProfile, ...]:
        """What was seen, but for the first runs."""
        found = [
            CallProfile(
                symbol, calls, statistics.median(run.get(symbol, 0.0) for run in self._runs[skip:])
            )
            for symbol, calls in self._calls.items()
        ]
        return tuple(sorted(found, key=lambda program: -program.total_us))
