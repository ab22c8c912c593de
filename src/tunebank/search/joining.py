"""Which kernels of a model are made one.

    a convolution and the window over its results      see `schedule/lines.py`
    two matrix products and the softmax between them   see `schedule/attention.py`

The joint kernel never writes what is between them. Convolutions that Winograd's filtering suits are
left to it.
"""

from __future__ import annotations

from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.model import Join, Model, joined, possible_joins
from tunebank.schedule import attention, lines
from tunebank.schedule.chain import may_slide
from tunebank.schedule.winograd import suitable


def worthwhile_joins(model: Model, device: Device, *, winograd: bool) -> dict[Join, str]:
    """The pairs of kernels that are expected to be faster as one, each with that kernel's key.

    Args:
        model: the model.
        device: what to compile for.
        winograd: whether Winograd's filtering may be used where it fits.
    """
    return _windows(model, device, winograd=winograd) | _attentions(model, device)


def _windows(model: Model, device: Device, *, winograd: bool) -> dict[Join, str]:
    def accept(first: Kernel, second: Kernel) -> bool:
        is_left = winograd and suitable(first, device) is not None
        return first.anchor is not None and not is_left and may_slide(second)

    found = possible_joins(model, accept)
    return {join: one.key for join, one in found.items() if lines.is_worthwhile(one, device)}


def _attentions(model: Model, device: Device) -> dict[Join, str]:
    """Of three kernels, in two steps: the first two, and these with the third."""
    found = possible_joins(model, attention.may_be_halves)
    if not found:
        return {}
    halves = {join: one.key for join, one in found.items()}
    rest = possible_joins(joined(model, halves), lambda first, _: first.key in halves.values())
    wholes = {join: one.key for join, one in rest.items() if attention.is_worthwhile(one, device)}
    wanted = {join.first for join in wholes}
    joins = {join: key for join, key in halves.items() if key in wanted} | wholes
    left = {kernel.key for kernel in joined(model, joins).kernels}  # where no third follows
    return {join: key for join, key in joins.items() if not {join.first, key} & wanted & left}
