"""A plan tried in the model: what is fastest alone need not be so between its neighbours.

    A    the plan as it was found
    B    for each kernel the next best schedule, mostly its default one, if that is not far behind

Both are built and profiled in turns, each kernel in place: with the caches as its neighbours leave
them. From then on

    C    for each kernel the schedule that was faster in place

and of A, B and C the one that is fastest as a whole is kept. B is what guards against a plan that
is worse than the default schedules.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunebank.bank import Bank
from tunebank.build.artifact import write_artifact
from tunebank.build.place import kernel_key_of
from tunebank.device import Device
from tunebank.measure import LocalMeasurer
from tunebank.model import Model
from tunebank.runtime.bench import bench
from tunebank.runtime.feed import random_feed
from tunebank.runtime.profile import profile
from tunebank.runtime.session import Session
from tunebank.search import Choice, Plan, ReuseSettings, reuse

LEAST_BUDGET_SECONDS = 20.0
"""Below it the time is better spent on measuring candidates."""

_NOTABLE = 0.03
"""A schedule has to be faster in place by this part to take the other's place."""
_TURNS = 3
_RUNS = 6
_ROUNDS = 6
_BENCH_SECONDS = 0.4
_BUILD_SECONDS_PER_KERNEL = 0.06
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
    kept = _kept_seconds(model, settings.budget_seconds) if measurer is not None else 0.0
    shorter = replace(settings, budget_seconds=settings.budget_seconds - kept)
    plan = reuse(model, bank, device, measurer, shorter, report=report)
    if measurer is None or not kept or plan.interrupted or not plan.measured:
        return plan
    try:
        return confirmed(model, plan, device, measurer, report=report)
    except KeyboardInterrupt:
        return replace(plan, interrupted=True)


def _kept_seconds(model: Model, budget_seconds: float) -> float:
    """How much of a search budget trying plans in the model will take; 0 if it is not done."""
    if budget_seconds < LEAST_BUDGET_SECONDS or len(model.functions) > 1:
        return 0.0
    builds = 2 * _BUILD_SECONDS_PER_KERNEL * len(model.kernels)
    return min(builds + _OTHER_SECONDS, budget_seconds / 4)


@dataclass(frozen=True)
class _Built:
    """A plan as an artifact that is loaded."""

    plan: Plan
    session: Session


def confirmed(
    model: Model,
    plan: Plan,
    device: Device,
    measurer: LocalMeasurer,
    *,
    report: Callable[[str], None] = lambda text: None,
) -> Plan:
    """The best plan as a whole; its search time includes what this took.

    Args:
        model: the model.
        plan: what a search found, with the alternatives of its choices.
        device: what to compile for.
        measurer: its workers build; it checks the numbers of schedules that were not checked.
        report: called with a line of text.
    """
    start = time.monotonic()
    other = _with_alternatives(plan, set(plan.choices))
    if other is None:
        return plan
    report("trying the plan in the model")
    with tempfile.TemporaryDirectory(prefix="tunebank-") as folder:

        def built(candidate: Plan, name: str) -> _Built:
            path = Path(folder) / name
            write_artifact(path, model, candidate, device, workers=measurer.pool)
            return _Built(candidate, Session(path))

        first, second = built(plan, "first"), built(other, "second")
        better = _faster_in_place(first, second)
        candidates = [first, second]
        mixed = _with_alternatives(plan, better) if better else None
        if mixed is not None and better != _differing(plan, other):
            candidates.append(built(mixed, "mixed"))
        best = _fastest(candidates)
    best = _checked(best, plan, measurer)
    return replace(best, search_seconds=plan.search_seconds + time.monotonic() - start)


def _with_alternatives(plan: Plan, keys: set[str]) -> Plan | None:
    """The plan with the alternative for these kernels; None if none of them has one."""
    changed = {key: c.alternative for key, c in plan.choices.items() if key in keys}
    known = {key: choice for key, choice in changed.items() if choice is not None}
    return replace(plan, choices={**plan.choices, **known}) if known else None


def _differing(plan: Plan, other: Plan) -> set[str]:
    return {key for key, choice in plan.choices.items() if other.choices[key] is not choice}


def _faster_in_place(first: _Built, second: _Built) -> set[str]:
    """The kernels that the second plan's schedules are faster for, in the model."""
    feed = random_feed(first.session.manifest.inputs)
    times: list[dict[str, list[float]]] = [{}, {}]
    for _ in range(_TURNS):
        for built, into in zip((first, second), times, strict=True):
            for program in profile(built.session, feed, runs=_RUNS).programs:
                into.setdefault(kernel_key_of(program.symbol), []).append(program.total_us)
    keys = _differing(first.plan, second.plan)
    return {
        key
        for key in keys
        if key in times[0]
        and key in times[1]
        and min(times[1][key]) < (1.0 - _NOTABLE) * min(times[0][key])
    }


def _fastest(candidates: list[_Built]) -> Plan:
    """The plan whose artifact is fastest; the first unless another is notably so."""
    feed = random_feed(candidates[0].session.manifest.inputs)
    runs = {
        str(index): (lambda session=built.session: session.run(None, feed))
        for index, built in enumerate(candidates)
    }
    samples = bench(runs, rounds=_ROUNDS, min_seconds=_BENCH_SECONDS)
    latencies = [samples[str(index)].median_ms for index in range(len(candidates))]
    return candidates[latencies.index(min(latencies))].plan


def _checked(best: Plan, plan: Plan, measurer: LocalMeasurer) -> Plan:
    """The best plan, without schedules whose numbers differ: those have the plan's own again."""
    doubtful: Mapping[str, Choice] = {
        key: choice
        for key, choice in best.choices.items()
        if choice is not plan.choices[key] and not choice.checked and choice.scheduled is not None
    }
    schedules = [choice.scheduled for choice in doubtful.values() if choice.scheduled is not None]
    if not schedules:
        return best
    results = measurer.measure(schedules, best_us={})
    wrong = {key for key, result in zip(doubtful, results, strict=True) if not result.checked}
    return replace(
        best,
        choices={k: plan.choices[k] if k in wrong else c for k, c in best.choices.items()},
    )
