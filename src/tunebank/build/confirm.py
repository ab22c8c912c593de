"""A plan tried in the model: what is fastest alone need not be so between its neighbours.

    A    the plan as it was found
    B    for each kernel the next best schedule, mostly its default one, if that is not far behind

Both are built, and run in turns with a clock on each call: with the caches as its neighbours
leave them. Each kernel keeps the schedule that was faster in place. B is what guards against a
plan that is worse than the default schedules.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
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
from tunebank.search import Plan, ReuseSettings, reuse

_NOTABLE = 0.03
"""A schedule has to be faster in place by this part to take the other's place."""
_TURNS = 4
_TURN_SECONDS = 0.3
_LEAST_RUNS, _MOST_RUNS = 2, 20
_MOST_SHARE = 0.3
"""Of the budget, at most; if it would take more it is not done."""
_BUILD_SECONDS_PER_KERNEL = 0.05
_BUILD_SECONDS_PER_BYTE = 4e-9
_OTHER_SECONDS = 4.0


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
    kept = _kept_seconds(model, settings.budget_seconds) if measurer is not None else 0.0
    shorter = replace(settings, budget_seconds=settings.budget_seconds - kept)
    plan = reuse(model, bank, device, measurer, shorter, report=report)
    if measurer is None or not kept or plan.interrupted or not plan.measured:
        return plan
    try:
        return confirmed(model, plan, device, measurer, report=report)
    except KeyboardInterrupt:
        return replace(plan, interrupted=True)


def confirmed(
    model: Model,
    plan: Plan,
    device: Device,
    measurer: LocalMeasurer,
    *,
    report: Callable[[str], None] = lambda text: None,
) -> Plan:
    """The plan with what is faster in the model; its search time includes what this took.

    Args:
        model: the model.
        plan: what a search found, with the alternatives of its choices.
        device: what to compile for.
        measurer: its workers build; it checks the numbers of schedules that were not checked.
        report: called with a line of text.
    """
    start = time.monotonic()
    keys = {key for key, choice in plan.choices.items() if choice.alternative is not None}
    if not keys:
        return plan
    report("trying the plan in the model")
    other = _with_alternatives(plan, keys)
    with tempfile.TemporaryDirectory(prefix="tunebank-") as folder:
        tried = [
            _Tried(model, one, device, measurer, Path(folder) / f"{name}.so")
            for name, one in (("first", plan), ("second", other))
        ]
        better = _faster_in_place(tried[0], tried[1], keys)
    better = {key for key in better if _is_right(other, key, measurer)}
    best = _with_alternatives(plan, better)
    return replace(best, search_seconds=plan.search_seconds + time.monotonic() - start)


def _kept_seconds(model: Model, budget_seconds: float) -> float:
    """How much of a search budget trying plans in the model will take; 0 if it is not done.

    Two builds and some seconds of runs. Functions for several shapes share packed weights, which a
    change of one kernel would break up.
    """
    if len(model.functions) > 1:
        return 0.0
    weights = sum(kernel.weight * kernel.argument_bytes for kernel in model.kernels)
    each = _BUILD_SECONDS_PER_KERNEL * len(model.kernels) + _BUILD_SECONDS_PER_BYTE * weights
    seconds = 2 * each + _OTHER_SECONDS
    return seconds if seconds <= _MOST_SHARE * budget_seconds else 0.0


class _Tried:
    """A plan built to be run here."""

    def __init__(
        self, model: Model, plan: Plan, device: Device, measurer: LocalMeasurer, library: Path
    ) -> None:
        self._machine = build(model, plan, device, measurer.pool, library=library).machine()
        self._main = self._machine[model.functions[0].name]
        feed = random_feed(model.inputs)
        self._arguments = [tensor(feed[spec.name]) for spec in model.inputs]
        self._threads = device.threads
        self._fastest_us: dict[str, float] = {}

    def turn(self, seconds: float) -> None:
        """Runs for a while, with the clock on each call."""
        clock = CallClock()
        self._machine.set_instrument(clock.on_call)
        end, runs = time.monotonic() + seconds, 0
        with _tvm.running_on(self._threads):
            while runs <= _LEAST_RUNS or (runs < _MOST_RUNS and time.monotonic() < end):
                clock.begin_run()
                self._main(*self._arguments)
                runs += 1
        for program in clock.programs(skip=1):
            key = kernel_key_of(program.symbol)
            self._fastest_us[key] = min(program.total_us, self._fastest_us.get(key, math.inf))

    def us(self, key: str) -> float:
        """What the calls of a kernel take in a run, in the best turn; infinite if not seen."""
        return self._fastest_us.get(key, math.inf)


def _with_alternatives(plan: Plan, keys: set[str]) -> Plan:
    """The plan with the alternative for these kernels."""
    changed = {key: plan.choices[key].alternative for key in keys}
    known = {key: choice for key, choice in changed.items() if choice is not None}
    return replace(plan, choices={**plan.choices, **known})


def _faster_in_place(first: _Tried, second: _Tried, keys: set[str]) -> set[str]:
    """The kernels that the second plan's schedules are faster for."""
    for _ in range(_TURNS):
        for one in (first, second):
            one.turn(_TURN_SECONDS)
    return {key for key in keys if second.us(key) < (1.0 - _NOTABLE) * first.us(key)}


def _is_right(plan: Plan, key: str, measurer: LocalMeasurer) -> bool:
    """Whether the numbers of a kernel's schedule were checked, now if not before."""
    choice = plan.choices[key]
    if choice.checked or choice.scheduled is None:
        return choice.checked
    (result,) = measurer.measure([choice.scheduled], best_us={})
    return result.checked
