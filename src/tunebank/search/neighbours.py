"""Schedules beside one that is a program of its own: its parameters varied one by one.

Panels(14, 2, 4)   →   Panels(15, 2, 4), Panels(14, 3, 4), ..., Panels(14, 2, 2)
"""

from __future__ import annotations

from tunebank.schedule import Trace
from tunebank.schedule.programs import is_own_program
from tunebank.schedule.trace import one_step


def neighbours(trace: Trace) -> list[Trace]:
    """What has one parameter larger or smaller by one, or twofold; it may not fit the kernel.

    None of a schedule that is no program of its own, or has no parameters.
    """
    if not is_own_program(trace):
        return []
    (step,) = trace.instructions
    values = list(step.attributes)
    found = [
        one_step(step.kind, *values[:at], other, *values[at + 1 :])
        for at, value in enumerate(values)
        for other in (value + 1, value - 1, 2 * value, value // 2)
        if other >= 1
    ]
    return list({one.identity: one for one in found}.values())
