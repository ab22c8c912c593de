"""Which kernels of a model are made one: a convolution and the window over its results.

The joint kernel never writes what is between the two; see `schedule/lines.py` for when that is
faster. Convolutions that Winograd's filtering suits are left to it.
"""

from __future__ import annotations

from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.model import Join, Model, possible_joins
from tunebank.schedule.chain import may_slide
from tunebank.schedule.lines import is_worthwhile
from tunebank.schedule.winograd import suitable


def worthwhile_joins(model: Model, device: Device, *, winograd: bool) -> dict[Join, str]:
    """The pairs of kernels that are expected to be faster as one, each with that kernel's key.

    Args:
        model: the model.
        device: what to compile for.
        winograd: whether Winograd's filtering may be used where it fits.
    """

    def accept(first: Kernel, second: Kernel) -> bool:
        is_left = winograd and suitable(first, device) is not None
        return first.anchor is not None and not is_left and may_slide(second)

    found = possible_joins(model, accept)
    return {join: one.key for join, one in found.items() if is_worthwhile(one, device)}
