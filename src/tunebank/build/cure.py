"""Another schedule for a kernel that turned out to be wrong in the compiled model.

Without measuring, a plan's schedules are proved legal, and no more. LLVM makes wrong code of some
legal ones. Verification finds the kernel; it then gets the first of its default schedules whose
numbers agree with the reference schedule's, or that one itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tunebank.build.apart import if_right
from tunebank.build.compile import without
from tunebank.device import Device
from tunebank.errors import WrongKernelError
from tunebank.measure import LocalMeasurer
from tunebank.runtime.manifest import Manifest
from tunebank.schedule import Space, legal_defaults
from tunebank.search import Plan

_MOST_KERNELS = 4


def with_right_kernels(
    plan: Plan,
    write: Callable[[Plan], Manifest],
    device: Device,
    measurer: LocalMeasurer,
    report: Callable[[str], None],
) -> tuple[Plan, Manifest]:
    """Writes a plan's artifact; a kernel that is found to be wrong gets another schedule.

    Args:
        plan: the plan.
        write: writes the artifact of a plan, and verifies it.
        device: what it is for.
        measurer: checks the kernels' numbers.
        report: called with a line about each such kernel.

    Returns:
        the plan that was written, and the artifact's manifest.

    Raises:
        WrongKernelError: a kernel is still wrong, or too many are.
    """
    cured: set[str] = set()
    while True:
        try:
            return plan, write(plan)
        except WrongKernelError as error:
            if error.kernel_key in cured or len(cured) == _MOST_KERNELS:
                raise
            report(f"kernel {error.kernel} gives wrong numbers: it gets another schedule")
            cured.add(error.kernel_key)
            plan = _cured(plan, error.kernel_key, device, measurer)


def _cured(plan: Plan, key: str, device: Device, measurer: LocalMeasurer) -> Plan:
    choice = plan.choices[key]
    wrong = choice.scheduled.trace.identity if choice.scheduled is not None else None
    for scheduled in legal_defaults(Space(choice.kernel, device)):
        if scheduled.trace.identity == wrong:
            continue
        other = replace(
            choice, scheduled=scheduled, origin="default", source="", record_id="",
            latency_us=None, checked=False, default=None, alternatives=(),
        )  # fmt: skip
        if (right := if_right(other, measurer)) is not None:
            return replace(plan, choices={**plan.choices, key: right})
    return without(plan, {key})
