"""What a kernel gets whose schedule fails only when the model is compiled.

Without measuring, a plan's schedules are proved legal, and no more: TVM can't build some legal
ones, and LLVM makes wrong code of some.

    donor's, default, ...   →   the next default schedules   →   the reference schedule

What failed stays with the choice, so that the bank learns of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from tunebank.device import Device
from tunebank.measure import Measurement
from tunebank.schedule import Space, legal_defaults
from tunebank.schedule.reference import reference_scheduled
from tunebank.search import Choice, GivenUp

_MOST_DEFAULTS = 4
"""They differ in kind; what follows are other tiles of the same loops."""


def fallbacks(choice: Choice, failure: Measurement, device: Device) -> Iterator[Choice]:
    """What else a kernel may get, the preferred first; each is made when asked for.

    Args:
        choice: what failed.
        failure: how it failed.
        device: the device to compile for.
    """
    given_up = choice.given_up
    if choice.scheduled is not None:
        one = GivenUp(choice.scheduled, choice.origin, choice.record_id, failure)
        given_up = (*given_up, one)
    failed = {one.scheduled.trace.identity for one in given_up}
    blank = replace(
        choice, origin="default", source="", record_id="", latency_us=None, checked=False,
        default=None, alternatives=(), given_up=given_up,
    )  # fmt: skip
    for scheduled in islice(legal_defaults(Space(choice.kernel, device)), _MOST_DEFAULTS):
        if scheduled.trace.identity not in failed:
            yield replace(blank, scheduled=scheduled)
    reference = reference_scheduled(choice.kernel)
    if reference.trace.identity not in failed:  # its numbers are what others are compared with
        yield replace(blank, scheduled=reference, origin="reference", checked=True)
