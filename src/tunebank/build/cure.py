"""Another schedule for a kernel that turned out to be wrong in the compiled model.

Verification finds the kernel; it then gets the first of its fallbacks whose numbers agree with
those of the reference schedule, or that one itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tunebank.build.apart import if_right
from tunebank.build.fallback import fallbacks
from tunebank.device import Device
from tunebank.errors import WrongKernelError
from tunebank.measure import LocalMeasurer, Measurement
from tunebank.runtime.manifest import Manifest
from tunebank.search import Plan

_MOST_KERNELS = 4


def with_right_kernels(
    plan: Plan,
    write: Callable[[Plan], tuple[Plan, Manifest]],
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
            return write(plan)
        except WrongKernelError as error:
            if error.kernel_key in cured or len(cured) == _MOST_KERNELS:
                raise
            report(f"kernel {error.kernel} gives wrong numbers: it gets another schedule")
            cured.add(error.kernel_key)
            plan = _cured(plan, error, device, measurer)


def _cured(plan: Plan, error: WrongKernelError, device: Device, measurer: LocalMeasurer) -> Plan:
    key = error.kernel_key
    failure = Measurement("wrong", error="in the compiled model")
    others = fallbacks(plan.choices[key], failure, device)
    right = next((one for other in others if (one := if_right(other, measurer))), None)
    if right is None:
        raise error
    return replace(plan, choices={**plan.choices, key: right})
