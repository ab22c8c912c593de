"""What is expected of a kernel's schedules before any is measured.

A cost model that was trained on banks judges schedules of MetaSchedule's space by all their tiles.
Without one, and for programs of their own, `schedule.estimate` judges by the innermost tile.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.schedule import Trace
from tunebank.schedule.estimate import expected_octaves
from tunebank.schedule.features import features
from tunebank.schedule.programs import is_own_program
from tunebank.transfer.pretrained import PretrainedModel


class Expectation:
    """Expected slow-down of one kernel's schedules, in octaves: 0 of as good as they get.

    Args:
        kernel: the kernel; of those without a reduction the cost model has learnt nothing.
        device: the device that it is compiled for.
        model: the cost model; None for the estimate alone.
    """

    def __init__(
        self, kernel: Kernel, device: Device, model: PretrainedModel | None = None
    ) -> None:
        self._kernel = kernel
        self._device = device
        self._model = model if kernel.anchor is not None else None
        self._known: dict[object, float] = {}

    def judges(self, trace: Trace) -> bool:
        """Whether the cost model, and not the estimate, speaks of a schedule."""
        return self._model is not None and not is_own_program(trace)

    def octaves(self, traces: Sequence[Trace]) -> list[float]:
        """What is expected of some schedules; of many at once in less time."""
        new = {t.identity: t for t in traces if t.identity not in self._known and self.judges(t)}
        if self._model is not None and new:
            rows = features(list(new.values()), self._kernel, self._device)
            learnt = self._model.octaves(rows) - self._model.least
            self._known.update(zip(new, map(float, learnt), strict=True))
        return [self._one(trace) for trace in traces]

    def _one(self, trace: Trace) -> float:
        if self.judges(trace):
            return self._known[trace.identity]
        return expected_octaves(trace, self._kernel, self._device)
