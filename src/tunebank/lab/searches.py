"""One search by reuse, and its plan as it stood when smaller budgets were used up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tunebank.lab.rows import KernelOutcome, SearchOutcome
from tunebank.search import Choice, Plan, Progress

Search = Callable[[float, Callable[[Any], None]], Plan]


def search_at(
    budgets: Sequence[float], search: Search, *, report: Callable[[Any], None]
) -> dict[float, Plan]:
    """The plans of a search by budget.

    One search of the largest budget is made; for a smaller one the plan is taken that stood after
    the last batch that ended within it. A budget of 0 is a search of its own.

    Args:
        budgets: seconds.
        search: searches for so many seconds, and tells its progress.
        report: told the progress too.
    """
    plans: dict[float, Plan] = {}
    waiting = sorted(budget for budget in budgets if budget > 0)
    standing: Plan | None = None

    def watch(progress: Any) -> None:
        nonlocal standing
        report(progress)
        if not isinstance(progress, Progress):
            return
        while standing is not None and waiting and progress.seconds > waiting[0]:
            plans[waiting.pop(0)] = standing
        if len(waiting) > 1:
            standing = progress.plan()

    if 0 in budgets:
        plans[0.0] = search(0.0, watch)
    if waiting:
        final = search(waiting[-1], watch)
        plans.update(dict.fromkeys(waiting, final))
    return dict(sorted(plans.items()))


def outcome(mode: str, budget_seconds: float, plan: Plan) -> SearchOutcome:
    """What a search came to."""
    choices = list(plan.choices.values())
    measured = all(choice.latency_us is not None for choice in choices)
    return SearchOutcome(
        mode=mode,
        budget_seconds=budget_seconds,
        search_seconds=plan.search_seconds,
        measured=plan.measured,
        candidates=sum(choice.candidates for choice in choices),
        invalid=sum(choice.invalid for choice in choices),
        failed=sum(choice.failed for choice in choices),
        wrong=sum(choice.wrong for choice in choices),
        without_donor=sum(c.match == "none" and c.kernel.anchor is not None for c in choices),
        slower=sum(_is_slower(choice) for choice in choices),
        kernels_us=plan.kernels_us if measured else None,
        kernels=tuple(_kernel(choice) for choice in choices),
    )


def _is_slower(choice: Choice) -> bool:
    if choice.latency_us is None or choice.untuned_us is None:
        return False
    return choice.latency_us > choice.untuned_us


def _kernel(choice: Choice) -> KernelOutcome:
    kernel = choice.kernel
    return KernelOutcome(
        key=kernel.key,
        class_key=kernel.class_key,
        name=kernel.name,
        weight=kernel.weight,
        gflop=kernel.gflop,
        match=choice.match,
        source=choice.source,
        untuned_us=choice.untuned_us,
        latency_us=choice.latency_us,
        donors_us=choice.donors_us,
    )
