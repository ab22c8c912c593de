"""Requests handed to workers: to a certain one, or to whichever is idle, until all are answered."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tunebank.measure.measurement import Status
from tunebank.measure.pool import WorkerCrashError, WorkerProcess, WorkerTimeoutError
from tunebank.measure.protocol import Message


@dataclass(frozen=True)
class Task:
    """A request, and what is done with its answer or its failure.

    Attributes:
        request: makes the message when a worker takes the task.
        on_answer: called with the worker and its answer.
        on_failure: called with what went wrong, and a line that says how.
        error_status: what a failure is that the worker reports itself.
        timeout_seconds: the worker is killed if it takes longer.
        worker: the one that must answer; None takes any.
        is_void: whether what it asks about was lost with a worker meanwhile.
    """

    request: Callable[[], Message]
    on_answer: Callable[[WorkerProcess, Message], None]
    on_failure: Callable[[Status, str], None]
    error_status: Status
    timeout_seconds: float
    worker: WorkerProcess | None = None
    is_void: Callable[[], bool] = lambda: False


def serve(workers: Sequence[WorkerProcess], tasks: Sequence[Task]) -> None:
    """Hands tasks to idle workers until all are answered, or void.

    Raises:
        MeasurementError: a worker does not start.
    """
    waiting = list(tasks)
    busy: dict[WorkerProcess, Task] = {}
    while waiting or busy:
        for worker in workers:
            if worker in busy:
                continue
            waiting = [task for task in waiting if not task.is_void()]
            task = next((t for t in waiting if t.worker in (None, worker)), None)
            if task is not None:
                waiting.remove(task)
                worker.send(task.request(), timeout_seconds=task.timeout_seconds)
                busy[worker] = task
        for worker in _answered(list(busy)):
            task = busy.pop(worker)
            answer = receive(worker)
            if isinstance(answer, tuple):
                task.on_failure(*answer)
            elif "error" in answer:
                task.on_failure(task.error_status, str(answer["error"]))
            else:
                task.on_answer(worker, answer)


def receive(worker: WorkerProcess) -> Message | tuple[Status, str]:
    """A worker's answer; or how the worker was lost."""
    try:
        return worker.receive()
    except WorkerTimeoutError as error:
        return "timeout", str(error)
    except WorkerCrashError as error:
        return "crashed", str(error)


def _answered(workers: list[WorkerProcess]) -> list[WorkerProcess]:
    """The workers that have answered, died, or used up their time; waits for the first."""
    if not workers:
        return []
    wait = max(0.0, min(worker.deadline for worker in workers) - time.monotonic())
    ready, _, _ = select.select(workers, [], [], wait)
    return ready or [worker for worker in workers if worker.deadline <= time.monotonic()]
