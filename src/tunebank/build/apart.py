"""Kernels that were made one, taken apart again where that is faster in the model."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.measure import LocalMeasurer
from tunebank.model import Join, Model, joined
from tunebank.schedule import Space, default_schedule
from tunebank.search import Choice, Plan

NOTABLE = 0.03
"""By which part something has to be faster in place to be preferred."""

KernelTimes = Sequence[Mapping[str, float]]
"""By turn, what the calls of each kernel took in a run, microseconds by kernel key."""


def apart(model: Model, plan: Plan, device: Device) -> Plan:
    """The plan with no kernels made one; those that it has no choice for get their default."""
    choices = {
        kernel.key: _choice_for(kernel, plan.choices[kernel.key])
        if kernel.key in plan.choices
        else Choice(kernel, default_schedule(Space(kernel, device)), origin="default")
        for kernel in model.kernels
    }
    return replace(plan, choices=choices, joins={})


def taken_apart(
    model: Model,
    plan: Plan,
    other: Plan,
    together_us: KernelTimes,
    apart_us: KernelTimes,
    measurer: LocalMeasurer,
) -> Plan:
    """The plan without the joins whose kernels were faster by themselves, and are right.

    Args:
        model: the model.
        plan: the plan.
        other: one without any joins.
        together_us: what was measured with the plan's joins.
        apart_us: what was measured in the other.
        measurer: checks the kernels' numbers.
    """
    joins, choices = dict(plan.joins), dict(plan.choices)
    for group in _groups(plan.joins):
        keys = {key for join in group for key in (join.first, join.second, plan.joins[join])}
        together, by_itself = (
            [sum(turn.get(key, 0.0) for key in keys) for turn in times]
            for times in (together_us, apart_us)
        )
        if not all(together) or ratio(by_itself, together) >= 1.0 - NOTABLE:
            continue  # nothing is known of a kernel that something else took the place of
        parts = {key: one for key, one in other.choices.items() if key in keys}
        right = {key: if_right(one, measurer) for key, one in parts.items()}
        if None not in right.values():
            choices |= {key: one for key, one in right.items() if one is not None}
            joins = {join: key for join, key in joins.items() if join not in group}
    kernels = joined(model, joins).kernels
    choices = {one.key: _choice_for(one, choices[one.key]) for one in kernels}
    return replace(plan, joins=joins, choices=choices)


def _choice_for(kernel: Kernel, choice: Choice) -> Choice:
    """The choice for the kernel as often as the model now calls it."""
    return choice if choice.kernel.weight == kernel.weight else replace(choice, kernel=kernel)


def _groups(joins: Mapping[Join, str]) -> list[set[Join]]:
    """The joins by which kernels they have in common: the clock can't tell these apart."""
    groups: list[set[Join]] = []
    for join, key in joins.items():
        own = {join.first, join.second, key}
        touched: list[set[Join]] = []
        rest: list[set[Join]] = []
        for group in groups:
            others = {key for one in group for key in (one.first, one.second, joins[one])}
            (touched if own & others else rest).append(group)
        groups = [*rest, {join}.union(*touched)]
    return groups


def ratio(own: Sequence[float], others: Sequence[float]) -> float:
    """How much longer it took, median over turns."""
    return statistics.median(one / other for one, other in zip(own, others, strict=True))


def if_right(choice: Choice, measurer: LocalMeasurer) -> Choice | None:
    """The choice, its numbers checked, now if not before; None if they are wrong."""
    if choice.checked or choice.scheduled is None:
        return choice
    (result,) = measurer.measure([choice.scheduled], best_us={})
    latency_us = choice.latency_us if choice.latency_us is not None else result.latency_us
    return replace(choice, checked=True, latency_us=latency_us) if result.checked else None
