"""The contestants of one comparison: plans made into artifacts, and rivals; timed in one run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from tunebank.build import write_artifact
from tunebank.device import Device
from tunebank.measure.pool import WorkerPool
from tunebank.model import Model
from tunebank.runtime.bench import Contestant, RoundProgress, bench, onnxruntime_contestant
from tunebank.runtime.feed import random_feed
from tunebank.runtime.session import Session
from tunebank.search import Plan

ONNXRUNTIME = "onnxruntime"
_Signature = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Race:
    """What a comparison gave.

    Attributes:
        timings_ms: by contestant, for each round its latencies, milliseconds.
        errors: by contestant, the largest error relative to ONNX Runtime's largest value.
        failures: by contestant that could not run, why.
    """

    timings_ms: Mapping[str, tuple[tuple[float, ...], ...]]
    errors: Mapping[str, float]
    failures: Mapping[str, str]


class Field:
    """Contestants on one model; frees what it made when the block ends.

    Plans with the same schedules are built and timed once, and go by all their names.
    """

    def __init__(self, model: Model, device: Device, workers: WorkerPool) -> None:
        self._model = model
        self._device = device
        self._workers = workers
        self._stack = ExitStack()
        self._folder = Path(
            self._stack.enter_context(tempfile.TemporaryDirectory(prefix="tunebank-"))
        )
        self._feed = random_feed(model.inputs)
        self._runs: dict[str, Contestant] = {}
        self._names: dict[str, str] = {}
        self._built: dict[_Signature, str] = {}
        self._failures: dict[str, str] = {}

    def __enter__(self) -> Field:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._runs.clear()
        self._stack.close()

    def add_plan(self, name: str, plan: Plan) -> None:
        """Compiles a plan, unless one with its schedules is there."""
        signature = _signature(plan)
        if signature not in self._built:
            folder = self._folder / str(len(self._built))
            write_artifact(folder, self._model, plan, self._device, workers=self._workers)
            session = Session(folder)
            self._runs[name] = lambda: session.run(None, self._feed)
            self._built[signature] = name
        self._names[name] = self._built[signature]

    def add_onnxruntime(self) -> None:
        """Adds ONNX Runtime on the model as it was written."""
        self._add(
            ONNXRUNTIME,
            lambda: onnxruntime_contestant(
                self._model.reference, self._feed, threads=self._device.threads
            ),
        )

    def add_torch(self, name: str, *, compiled: bool) -> None:
        """Adds PyTorch; why it can't run is kept, if it can't."""
        from tunebank.lab.rivals import torch_contestant

        label = "torch_compile" if compiled else "torch"
        self._add(
            label,
            lambda: torch_contestant(
                name, self._feed, threads=self._device.threads, compiled=compiled
            ),
        )

    def race(
        self,
        *,
        rounds: int,
        min_seconds: float,
        report: Callable[[RoundProgress], None] = lambda progress: None,
    ) -> Race:
        """Compares their numbers, then times all in turns."""
        errors = self._errors()
        samples = bench(self._runs, rounds=rounds, min_seconds=min_seconds, report=report)
        timings = {name: samples[built].rounds_ms for name, built in self._names.items()}
        return Race(timings, errors, dict(self._failures))

    def _add(self, name: str, make: Callable[[], Contestant]) -> None:
        try:
            self._runs[name] = make()
        except Exception as error:  # of libraries that are not ours: a rival that can't run
            lines = str(error).strip().splitlines() or [""]
            self._failures[name] = f"{type(error).__name__}: {lines[0][:200]}"
        else:
            self._names[name] = name

    def _errors(self) -> dict[str, float]:
        if ONNXRUNTIME not in self._runs:
            return {}
        expected = _arrays(self._runs[ONNXRUNTIME]())
        found = {
            name: _relative_error(_arrays(run()), expected) for name, run in self._runs.items()
        }
        return {name: found[built] for name, built in self._names.items()}


def _signature(plan: Plan) -> _Signature:
    """The schedules, by kernel."""
    return tuple(
        (key, choice.scheduled.trace.text if choice.scheduled else "")
        for key, choice in sorted(plan.choices.items())
    )


def _arrays(outputs: Any) -> list[np.ndarray[Any, Any]]:
    return [np.asarray(output) for output in outputs]


def _relative_error(
    actual: list[np.ndarray[Any, Any]], expected: list[np.ndarray[Any, Any]]
) -> float:
    """Largest difference relative to the largest value, over all outputs."""
    worst = 0.0
    for own, reference in zip(actual, expected, strict=True):
        scale = float(np.max(np.abs(reference), initial=0.0)) or 1.0
        worst = max(worst, float(np.max(np.abs(own - reference), initial=0.0)) / scale)
    return worst
