"""A plan tried in the model: what is fastest alone need not be so between its neighbours.

    first      the plan as it was found
    second     for each kernel the next best schedule, mostly its default one, if not far behind
    third ...  those after it, as many as there is time for

All are built, and run in turns with a clock on each call: with the caches as its neighbours leave
them. Of each kernel the schedule that was fastest in place is taken, and these together are run
beside the first two plans: what is kept is never slower than what was found, nor than the default.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tvm.runtime import tensor

from tunebank import _tvm
from tunebank.bank import Bank
from tunebank.build.compile import build
from tunebank.build.place import kernel_key_of
from tunebank.device import Device
from tunebank.measure import LocalMeasurer
from tunebank.model import Model
from tunebank.runtime.feed import random_feed
from tunebank.runtime.profile import CallClock
from tunebank.search import Choice, Plan, ReuseSettings, reuse

_NOTABLE = 0.03
"""A schedule has to be faster in place by this part to take the first plan's place."""
_TURNS = 4
_TURN_SECONDS = 0.2
_LEAST_RUNS, _MOST_RUNS = 2, 20
_PLANS = 4
_MOST_SHARE = 0.3
"""Of the budget, at most; if two plans would take more it is not done."""
_MOST_BYTES = 2**30
"""Of weights in all plans together, where they are more than two."""
_BUILD_SECONDS_PER_KERNEL = 0.05
_BUILD_SECONDS_PER_BYTE = 4e-9
_OTHER_SECONDS = 3.0


def find_plan(
    model: Model,
    bank: Bank,
    device: Device,
    measurer: LocalMeasurer | None,
    settings: ReuseSettings,
    *,
    report: Callable[[Any], None] = lambda event: None,
) -> Plan:
    """Searches, and tries the plan in the model, all within the budget; see `reuse`."""
    count, kept = _share(model, settings.budget_seconds) if measurer is not None else (0, 0.0)
    shorter = replace(settings, budget_seconds=settings.budget_seconds - kept)
    plan = reuse(model, bank, device, measurer, shorter, report=report)
    if measurer is None or not count or plan.interrupted or not plan.measured:
        return plan
    try:
        return confirmed(model, plan, device, measurer, most_plans=count, report=report)
    except KeyboardInterrupt:
        return replace(plan, interrupted=True)


def confirmed(
    model: Model,
    plan: Plan,
    device: Device,
    measurer: LocalMeasurer,
    *,
    most_plans: int = _PLANS,
    report: Callable[[str], None] = lambda text: None,
) -> Plan:
    """The plan with what is faster in the model; its search time includes what this took.

    Args:
        model: the model.
        plan: what a search found, with the alternatives of its choices.
        device: what to compile for.
        measurer: its workers build; it checks the numbers of schedules that were not checked.
        most_plans: how many plans to try, the first among them.
        report: called with a line of text.
    """
    start = time.monotonic()
    plans = _plans(plan, most_plans)
    if len(plans) < 2:
        return plan
    report("trying the plan in the model")
    with tempfile.TemporaryDirectory(prefix="tunebank-") as folder:

        def tried(one: Plan, name: str) -> _Tried:
            return _Tried(model, one, device, measurer, Path(folder) / f"{name}.so")

        field = [tried(one, str(index)) for index, one in enumerate(plans)]
        _take_turns(field)
        best = _fastest_in_place(field, measurer)
        if any(choice is not plan.choices[key] for key, choice in best.choices.items()):
            field = [tried(best, "best"), *field[:2]]
            best = _fastest(field, _take_turns(field), measurer)
    return replace(best, search_seconds=plan.search_seconds + time.monotonic() - start)


def _share(model: Model, budget_seconds: float) -> tuple[int, float]:
    """How many plans to try in the model, and the seconds of the budget that it will take.

    None where it would take too much of it, or for several shapes: their functions share packed
    weights, which a change of one kernel would break up.
    """
    if len(model.functions) > 1:
        return 0, 0.0
    weights = sum(kernel.weight * kernel.argument_bytes for kernel in model.kernels)
    build = _BUILD_SECONDS_PER_KERNEL * len(model.kernels) + _BUILD_SECONDS_PER_BYTE * weights
    each = build + _TURNS * _TURN_SECONDS
    room = _MOST_SHARE * budget_seconds - _OTHER_SECONDS
    count = min(_PLANS, int(room / each), max(2, int(_MOST_BYTES / max(1, weights))))
    return (count, count * each + _OTHER_SECONDS) if count >= 2 else (0, 0.0)


def _plans(plan: Plan, most: int) -> list[Plan]:
    """The plan, the plan of the second choices, of the third, ..."""
    lines = {key: (choice, *choice.alternatives) for key, choice in plan.choices.items()}
    count = min(most, max((len(line) for line in lines.values()), default=0))
    return [
        replace(plan, choices={k: line[min(rank, len(line) - 1)] for k, line in lines.items()})
        for rank in range(count)
    ]


class _Tried:
    """A plan built to be run here."""

    def __init__(
        self, model: Model, plan: Plan, device: Device, measurer: LocalMeasurer, library: Path
    ) -> None:
        self.plan = plan
        self._machine = build(model, plan, device, measurer.pool, library=library).machine()
        self._main = self._machine[model.functions[0].name]
        feed = random_feed(model.inputs)
        self._arguments = [tensor(feed[spec.name]) for spec in model.inputs]
        self._threads = device.threads
        self._fastest_us: dict[str, float] = {}

    def turn(self, seconds: float) -> float:
        """Runs for a while, with the clock on each call; returns what a run takes."""
        clock = CallClock()
        self._machine.set_instrument(clock.on_call)
        end, times = time.monotonic() + seconds, list[float]()
        with _tvm.running_on(self._threads):
            while len(times) <= _LEAST_RUNS or (len(times) < _MOST_RUNS and time.monotonic() < end):
                clock.begin_run()
                start = time.perf_counter()
                self._main(*self._arguments)
                times.append(1e6 * (time.perf_counter() - start))
        for program in clock.programs(skip=1):
            key = kernel_key_of(program.symbol)
            self._fastest_us[key] = min(program.total_us, self._fastest_us.get(key, math.inf))
        return statistics.median(times[1:])

    def us(self, key: str) -> float:
        """What the calls of a kernel take in a run, in the best turn; infinite if not seen."""
        return self._fastest_us.get(key, math.inf)


def _take_turns(field: Sequence[_Tried]) -> list[float]:
    """Runs all in turns; what a run of each takes in its best turn."""
    turns = [[one.turn(_TURN_SECONDS) for one in field] for _ in range(_TURNS)]
    return [min(times) for times in zip(*turns, strict=True)]


def _fastest_in_place(field: Sequence[_Tried], measurer: LocalMeasurer) -> Plan:
    """The first plan, with what was notably faster in another and is right."""
    first, *others = field
    choices = dict(first.plan.choices)
    for key, choice in choices.items():
        fastest = min(others, key=lambda one: one.us(key))
        if fastest.us(key) < (1.0 - _NOTABLE) * first.us(key):
            choices[key] = _if_right(fastest.plan.choices[key], measurer) or choice
    return replace(first.plan, choices=choices)


def _fastest(field: Sequence[_Tried], runs_us: Sequence[float], measurer: LocalMeasurer) -> Plan:
    """The plan of the fastest runs; in the last one are schedules that were never checked."""
    *known, last = field
    for _, one in sorted(zip(runs_us, field, strict=True), key=lambda pair: pair[0]):
        if one is not last:
            return one.plan
        checked = {key: _if_right(choice, measurer) for key, choice in one.plan.choices.items()}
        right = {key: choice for key, choice in checked.items() if choice is not None}
        if len(right) == len(checked):
            return replace(one.plan, choices=right)
    return known[0].plan


def _if_right(choice: Choice, measurer: LocalMeasurer) -> Choice | None:
    """The choice, its numbers checked, now if not before; None if they are wrong."""
    if choice.checked or choice.scheduled is None:
        return choice
    (result,) = measurer.measure([choice.scheduled], best_us={})
    return replace(choice, checked=True) if result.checked else None
