"""Measuring candidates: built side by side, run alone, contenders run again and checked.

A round takes a batch of candidates through three stages:

    build   every worker builds its share; nothing runs meanwhile
    look    each program runs a few times, one at a time, nothing else on the machine
    repeat  a program that may beat the best known latency of its kernel runs more often; if it
            still does, its results are compared with those of the reference schedule

Only what went through the third stage and agreed can be chosen.
"""

from __future__ import annotations

import select
import statistics
import time
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from tvm import ir

from tunebank.device import Device
from tunebank.measure.pool import (
    WorkerCrashError,
    WorkerPool,
    WorkerProcess,
    WorkerTimeoutError,
)
from tunebank.measure.protocol import Message
from tunebank.schedule import Scheduled
from tunebank.schedule.reference import output_positions, reference_module

Status = Literal["ok", "build_failed", "run_failed", "timeout", "crashed", "wrong"]

LOOK_RUNS = 2
REPEAT_RUNS = 8
CONTENDER_RATIO = 1.15
"""A program is a contender if its first look is at most this much slower than the best."""

RELATIVE_TOLERANCE = {"float16": 2e-2, "bfloat16": 1e-1}
DEFAULT_RELATIVE_TOLERANCE = 1e-4
"""Largest error allowed against the reference schedule, relative to the largest output."""


@dataclass(frozen=True)
class Measurement:
    """What came of measuring one candidate.

    Attributes:
        status: `ok`, or what went wrong.
        samples_us: latencies of single runs, microseconds.
        checked: whether its numbers were compared with the reference's and agreed.
        error: one line, if something went wrong.
        stage_seconds: seconds by stage (build, lower, codegen, run).
    """

    status: Status
    samples_us: tuple[float, ...] = ()
    checked: bool = False
    error: str | None = None
    stage_seconds: dict[str, float] = field(default_factory=dict, compare=False)

    @property
    def latency_us(self) -> float | None:
        """Median latency in microseconds; None if the measurement failed."""
        return statistics.median(self.samples_us) if self.status == "ok" else None


class Measurer(Protocol):
    """Measures candidates. One caller at a time."""

    def measure(
        self, candidates: Sequence[Scheduled], *, best_us: dict[str, float]
    ) -> list[Measurement]:
        """Measures a batch, one measurement per candidate in order.

        Args:
            candidates: programs to measure.
            best_us: by kernel key, the best latency known; decides who is a contender.
        """
        ...

    def close(self) -> None:
        """Frees processes. The measurer can't be used afterwards."""
        ...


@dataclass
class _Job:
    """A candidate on its way through the stages."""

    candidate: Scheduled
    ticket: str
    worker: WorkerProcess | None = None
    generation: int = -1
    result: Measurement | None = None
    stage_seconds: dict[str, float] = field(default_factory=dict)
    attempts: int = 0


class LocalMeasurer:
    """Measures on this machine with warm worker processes."""

    def __init__(
        self,
        device: Device,
        *,
        workers: int | None = None,
        build_timeout_seconds: float = 20.0,
        run_timeout_seconds: float = 10.0,
    ) -> None:
        self._device = device
        self._pool = WorkerPool(workers=workers or device.threads, threads=device.threads)
        self._build_timeout = build_timeout_seconds
        self._run_timeout = run_timeout_seconds
        self._references: dict[str, str] = {}

    def start(self) -> None:
        """Starts the workers, which otherwise start with the first batch.

        Raises:
            MeasurementError: a worker does not start.
        """
        self._pool.start()

    def close(self) -> None:
        """Ends the workers."""
        self._pool.close()

    def measure(
        self, candidates: Sequence[Scheduled], *, best_us: dict[str, float]
    ) -> list[Measurement]:
        """See `Measurer.measure`."""
        jobs = [_Job(candidate, uuid.uuid4().hex) for candidate in candidates]
        best = dict(best_us)
        # A worker that dies takes the programs it had built with it: those are built again.
        while pending := [job for job in jobs if job.result is None]:
            self._build_all(pending)
            self._look_at_all([job for job in pending if job.result is None], best)
        self._repeat_contenders(jobs, best, dict(best_us))
        self._drop(jobs)
        return [replace(_result(job), stage_seconds=job.stage_seconds) for job in jobs]

    # -- stages

    def _build_all(self, jobs: Sequence[_Job]) -> None:
        waiting = deque(jobs)
        idle = list(self._pool.workers)
        busy: dict[WorkerProcess, _Job] = {}
        while waiting or busy:
            while waiting and idle:
                worker, job = idle.pop(), waiting.popleft()
                worker.send(self._build_request(job), timeout_seconds=self._build_timeout)
                busy[worker] = job
            for worker in _answered(list(busy)):
                job = busy.pop(worker)
                idle.append(worker)
                answer = self._receive(worker, job, failure="build_failed")
                if answer is not None:
                    job.worker, job.generation = worker, worker.generation
                    self._note(job, answer)

    def _look_at_all(self, jobs: Sequence[_Job], best: dict[str, float]) -> None:
        for job in jobs:
            samples = self._run(job, LOOK_RUNS)
            if samples is not None:
                job.result = Measurement("ok", samples)
                key = job.candidate.kernel.key
                best[key] = min(best.get(key, float("inf")), min(samples))

    def _repeat_contenders(
        self, jobs: Sequence[_Job], best: dict[str, float], checked_us: dict[str, float]
    ) -> None:
        """Runs contenders again, and checks the numbers of those that would be chosen."""
        contenders = []
        for job in jobs:
            result = _result(job)
            limit = CONTENDER_RATIO * best.get(job.candidate.kernel.key, 0.0)
            if result.status != "ok" or min(result.samples_us) > limit:
                continue
            samples = self._run(job, REPEAT_RUNS)
            if samples is not None:
                job.result = Measurement("ok", samples)
                contenders.append(job)
        for job in sorted(contenders, key=lambda job: _result(job).latency_us or 0.0):
            key = job.candidate.kernel.key
            latency = _result(job).latency_us or 0.0
            if latency < checked_us.get(key, float("inf")):
                job.result = self._checked(job, _result(job))
                if job.result.checked:
                    checked_us[key] = latency

    def _checked(self, job: _Job, result: Measurement) -> Measurement:
        """The measurement after its numbers were compared with the reference's."""
        worker = job.worker
        assert worker is not None
        worker.send(self._check_request(job), timeout_seconds=self._build_timeout)
        answer = self._receive(worker, job, failure="run_failed")
        if answer is None:
            return _result(job)
        dtype = str(job.candidate.kernel.func.params[-1].dtype)
        tolerance = RELATIVE_TOLERANCE.get(dtype, DEFAULT_RELATIVE_TOLERANCE)
        error, scale = float(answer["max_abs_error"]), float(answer["scale"])
        if not answer["finite"] or not error <= tolerance * max(scale, 1e-30):
            text = f"differs from the reference by {error:.3g} at a scale of {scale:.3g}"
            return Measurement("wrong", error=text)
        return replace(result, checked=True)

    def _run(self, job: _Job, runs: int) -> tuple[float, ...] | None:
        """Latencies in microseconds; None if the job failed or must be built again."""
        worker = job.worker
        assert worker is not None
        if worker.generation != job.generation:
            return None
        request = {"op": "run", "ticket": job.ticket, "runs": runs}
        worker.send(request, timeout_seconds=self._run_timeout)
        answer = self._receive(worker, job, failure="run_failed")
        if answer is None:
            return None
        self._note(job, answer)
        return tuple(float(value) for value in answer["samples_us"])

    def _drop(self, jobs: Sequence[_Job]) -> None:
        for worker in self._pool.workers:
            tickets = [
                job.ticket
                for job in jobs
                if job.worker is worker and job.generation == worker.generation
            ]
            if tickets:
                worker.send({"op": "drop", "tickets": tickets}, timeout_seconds=self._run_timeout)
                self._receive(worker, _Job(jobs[0].candidate, ""), failure="run_failed")

    # -- requests and answers

    def _receive(self, worker: WorkerProcess, job: _Job, *, failure: Status) -> Message | None:
        """The answer; None if it is a failure, which the job's result then holds."""
        try:
            answer = worker.receive()
        except WorkerTimeoutError as error:
            job.result = Measurement("timeout", error=str(error))
        except WorkerCrashError as error:
            job.result = Measurement("crashed", error=str(error))
        else:
            if "error" not in answer:
                return answer
            job.result = Measurement(failure, error=str(answer["error"]))
        return None

    def _build_request(self, job: _Job) -> Message:
        return {
            "op": "build",
            "ticket": job.ticket,
            "module": str(ir.save_json(job.candidate.module)),
            "target": self._device.target,
        }

    def _check_request(self, job: _Job) -> Message:
        kernel = job.candidate.kernel
        if kernel.key not in self._references:
            self._references[kernel.key] = str(ir.save_json(reference_module(kernel)))
        return {
            "op": "check",
            "kernel": kernel.key,
            "reference": self._references[kernel.key],
            "module": str(ir.save_json(job.candidate.module)),
            "outputs": output_positions(kernel),
            "target": self._device.target,
        }

    @staticmethod
    def _note(job: _Job, answer: Message) -> None:
        for name, value in answer.items():
            if name.endswith("_seconds"):
                stage = name.removesuffix("_seconds")
                job.stage_seconds[stage] = job.stage_seconds.get(stage, 0.0) + float(value)


def _result(job: _Job) -> Measurement:
    assert job.result is not None
    return job.result


def _answered(workers: list[WorkerProcess]) -> list[WorkerProcess]:
    """The workers that have answered, died, or used up their time; waits for the first."""
    wait = max(0.0, min(worker.deadline for worker in workers) - time.monotonic())
    ready, _, _ = select.select(workers, [], [], wait)
    return ready or [worker for worker in workers if worker.deadline <= time.monotonic()]
