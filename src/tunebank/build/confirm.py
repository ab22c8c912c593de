"""A plan tried in the model: what is fastest alone need not be so between its neighbours.

    first      the plan as it was found
    second     the default schedules, where they are not far behind; each kernel by itself
    third ...  the next best schedules, and those after them, as many as there is time for

All are built, and run in turns with a clock on each call: with the caches as its neighbours leave
them. A kernel gets its default schedule, unless another took notably less in place: alone the
default was measured once, maybe in a bad moment, and what was found is the least of many. Kernels
that were made one are taken apart where they were faster so. All this together is run beside the
first two plans, if there is time: what is kept is then not notably slower than what was found,
nor than the default.
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
from tunebank.build.apart import NOTABLE, apart, if_right, ratio, taken_apart
from tunebank.build.compile import build
from tunebank.build.place import kernel_key_of
from tunebank.device import Device
from tunebank.measure import LocalMeasurer
from tunebank.model import Model
from tunebank.runtime.feed import random_feed
from tunebank.runtime.profile import CallClock
from tunebank.search import Choice, Plan, ReuseSettings, reuse

_TURNS = 5
"""Many short ones: a machine's slow moments are then spread over all plans."""
_TURN_SECONDS = 0.15
_LEAST_RUNS, _MOST_RUNS = 1, 20
_PLANS = 4
_FINALISTS = 3
_MOST_SHARE = 0.3
"""Of the budget, at most; if two plans would take more it is not done."""
_MOST_BYTES = 2**30
"""Of weights in all plans together, where they are more than two."""
_BUILD_SECONDS_PER_KERNEL = 0.08
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
        left = settings.budget_seconds - plan.search_seconds
        return confirmed(
            model, plan, device, measurer, most_plans=count, seconds=left, report=report
        )
    except KeyboardInterrupt:
        return replace(plan, interrupted=True)


def confirmed(
    model: Model,
    plan: Plan,
    device: Device,
    measurer: LocalMeasurer,
    *,
    most_plans: int = _PLANS,
    seconds: float = math.inf,
    report: Callable[[str], None] = lambda text: None,
) -> Plan:
    """The plan with what is faster in the model; its search time includes what this took.

    Args:
        model: the model.
        plan: what a search found, with the alternatives of its choices.
        device: what to compile for.
        measurer: its workers build; it checks the numbers of schedules that were not checked.
        most_plans: how many plans to try, the first among them.
        seconds: time for it; with too little for two plans none is tried.
        report: called with a line of text.
    """
    start = time.monotonic()
    plans = _plans(model, plan, device, most_plans)
    if len(plans) < 2:
        return plan
    report("trying the plan in the model")
    with tempfile.TemporaryDirectory(prefix="tunebank-") as folder:
        turns = _TURNS * max(_TURN_SECONDS, (1 + _LEAST_RUNS) * 1e-6 * plan.kernels_us)

        def tried(one: Plan, name: str) -> _Tried:
            return _Tried(model, one, device, measurer, Path(folder) / f"{name}.so")

        def fits(tried: int, builds: int) -> bool:
            left = seconds - (time.monotonic() - start)
            return tried * turns + builds * field[-1].build_seconds < left

        field = [tried(plans[0], "0")]
        if not fits(tried=2, builds=1):  # builds are slower than was thought
            return replace(plan, search_seconds=plan.search_seconds + time.monotonic() - start)
        field.append(tried(plans[1], "1"))
        for rank, one in enumerate(plans[2:], start=2):
            if fits(tried=len(field) + 1 + _FINALISTS, builds=2):
                field.append(tried(one, str(rank)))
        _take_turns(field)
        best = _fastest_in_place(model, field, measurer)
        is_new = any(choice is not plan.choices.get(key) for key, choice in best.choices.items())
        if is_new and fits(tried=_FINALISTS, builds=1):
            field = [tried(best, "best"), *field[:2]]
            _take_turns(field)
            best = _fastest(field, measurer)
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


def _plans(model: Model, plan: Plan, device: Device, most: int) -> list[Plan]:
    """The plan, the default schedules, the plan of the next choices, ...; each differs."""
    lines = {
        key: (choice, choice.default or choice, *choice.alternatives)
        for key, choice in plan.choices.items()
    }
    plans = []
    for rank in range(max(map(len, lines.values()), default=0)):
        choices = {key: line[rank if rank < len(line) else 0] for key, line in lines.items()}
        one = replace(plan, choices=choices)
        if rank == 1 and plan.joins:
            plans.append(apart(model, one, device))
        elif rank == 0 or any(choice is not plan.choices[key] for key, choice in choices.items()):
            plans.append(one)
    return plans[:most]


class _Tried:
    """A plan built to be run here.

    Attributes:
        plan: the plan as it was built.
        build_seconds: what building it took.
        runs_us: by turn, what a run took.
        kernels_us: by turn, what the calls of each kernel took in a run.
    """

    def __init__(
        self, model: Model, plan: Plan, device: Device, measurer: LocalMeasurer, library: Path
    ) -> None:
        self.runs_us: list[float] = []
        self.kernels_us: list[dict[str, float]] = []
        self._calls: dict[str, int] = {}
        start = time.monotonic()
        built = build(model, plan, device, measurer.pool, library=library)
        self.plan = built.plan
        self._machine = built.machine()
        self._main = self._machine[model.functions[0].name]
        feed = random_feed(model.inputs)
        self._arguments = [tensor(feed[spec.name]) for spec in model.inputs]
        self._threads = device.threads
        self.build_seconds = time.monotonic() - start

    def turn(self) -> None:
        """Runs for a while, with the clock on each call."""
        clock = CallClock()
        self._machine.set_instrument(clock.on_call)
        end, times = time.monotonic() + _TURN_SECONDS, list[float]()
        with _tvm.running_on(self._threads):
            while len(times) <= _LEAST_RUNS or (len(times) < _MOST_RUNS and time.monotonic() < end):
                clock.begin_run()
                start = time.perf_counter()
                self._main(*self._arguments)
                times.append(1e6 * (time.perf_counter() - start))
        self.runs_us.append(statistics.median(times[1:]))
        programs = clock.programs(skip=1)
        self.kernels_us.append({kernel_key_of(one.symbol): one.total_us for one in programs})
        self._calls = {kernel_key_of(one.symbol): one.calls for one in programs}

    def has_called(self, key: str) -> bool:
        """Whether a run calls the kernel: others are made one with it, or run when it is built."""
        return key in self._calls

    def call_us(self, key: str) -> list[float]:
        """By turn, what a call of a kernel took."""
        return [turn[key] / self._calls[key] for turn in self.kernels_us]


def _take_turns(field: Sequence[_Tried]) -> None:
    """Runs all in turns; what was before is forgotten."""
    for one in field:
        one.runs_us, one.kernels_us = [], []
    for _ in range(_TURNS):
        for one in field:
            one.turn()


def _fastest_in_place(model: Model, field: Sequence[_Tried], measurer: LocalMeasurer) -> Plan:
    """The first plan, with the schedules that are best in place and right."""
    found, other, *_ = field
    choices = dict(found.plan.choices)
    for key, choice in choices.items():
        best = _best_in_place(choice, field)
        if best is not choice:
            choices[key] = if_right(best, measurer) or choice
    plan = replace(found.plan, choices=choices)
    if not plan.joins:
        return plan
    return taken_apart(model, plan, other.plan, found.kernels_us, other.kernels_us, measurer)


def _best_in_place(choice: Choice, field: Sequence[_Tried]) -> Choice:
    """The default, unless others are notably faster; then the fastest."""
    key = choice.kernel.key
    tried: dict[int, list[_Tried]] = {}  # by schedule: plans have some in common
    for one in field:
        if one.has_called(key):
            tried.setdefault(id(one.plan.choices[key].scheduled), []).append(one)
    own, default = id(choice.scheduled), id((choice.default or choice).scheduled)
    yardstick = default if default in tried else own
    if yardstick not in tried:  # it did not build, or runs when the model is built
        return choice
    times = {schedule: _call_us(plans, key) for schedule, plans in tried.items()}
    ratios = {schedule: ratio(us, times[yardstick]) for schedule, us in times.items()}
    best = min(ratios, key=lambda schedule: ratios[schedule])
    if ratios[best] >= 1.0 - NOTABLE:
        best = yardstick
    return choice if best == own else tried[best][0].plan.choices[key]


def _call_us(tried: Sequence[_Tried], key: str) -> list[float]:
    """By turn, what a call of a kernel took, median over plans."""
    return [statistics.median(us) for us in zip(*(one.call_us(key) for one in tried), strict=True)]


def _fastest(field: Sequence[_Tried], measurer: LocalMeasurer) -> Plan:
    """The plan made of what was best in place, unless one tried before is notably faster."""
    best, *others = field
    ratios = [ratio(one.runs_us, best.runs_us) for one in others]
    if min(ratios) >= 1.0 - NOTABLE:
        return best.plan
    plan = others[ratios.index(min(ratios))].plan
    checked = {key: if_right(choice, measurer) for key, choice in plan.choices.items()}
    right = {key: choice for key, choice in checked.items() if choice is not None}
    return replace(plan, choices=right) if len(right) == len(checked) else best.plan
