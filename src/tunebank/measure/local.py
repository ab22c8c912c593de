"""Measuring on this machine: built side by side, run alone, contenders run again and checked.

A batch of candidates goes through four stages:

    build   every worker builds its share; nothing is timed meanwhile
    look    each program runs a few times, one at a time, nothing else on the machine
    repeat  a program that may beat the best known latency of its kernel runs more often; so does
            one that it outran, if it proves slower than that one looked
    check   the fastest contender of each kernel, if it still beats the best known latency, has
            its results compared with those of the reference schedule; if they differ it is
            `wrong`, and the next fastest is compared

Only what was checked and agreed can be chosen.
"""

from __future__ import annotations

import math
import tempfile
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from tvm import ir

from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.measure.arguments import index_positions
from tunebank.measure.dispatch import Task, receive, serve
from tunebank.measure.measurement import Measurement, Status
from tunebank.measure.pool import WorkerPool, WorkerProcess
from tunebank.measure.protocol import Message
from tunebank.measure.rounding import rounding_variance
from tunebank.schedule import Scheduled
from tunebank.schedule.reference import output_positions, reference_module

LOOK_RUNS = 2
REPEAT_RUNS = 8
CONTENDER_RATIO = 1.12
"""A program is a contender if its first look is at most this much slower than the best."""

LEAST_FLOAT_ROUNDING = 2.5e-5
"""Relative error that float32 programs are allowed whatever their sums: 1e-4 of the largest value.
A logarithm or a division after a sum enlarges its errors, which no count of roundings knows."""


@dataclass(eq=False)
class _Job:
    """A candidate on its way through the stages."""

    candidate: Scheduled
    ticket: str
    worker: WorkerProcess | None = None
    generation: int = -1
    result: Measurement | None = None
    stage_seconds: dict[str, float] = field(default_factory=dict)
    is_asked: bool = False
    """Whether its numbers were asked for."""

    @property
    def key(self) -> str:
        return self.candidate.kernel.key

    @property
    def latency_us(self) -> float:
        latency = self.result.latency_us if self.result is not None else None
        return math.inf if latency is None else latency

    @property
    def is_loaded(self) -> bool:
        """Whether the worker that built it still lives."""
        return self.worker is not None and self.worker.generation == self.generation

    def fail(self, status: Status, error: str) -> None:
        self.result = Measurement(status, error=error)


class LocalMeasurer:
    """Measures on this machine with warm worker processes.

    Args:
        device: what to build for and on how many threads to run.
        workers: worker processes; None takes one per thread.
        build_timeout_seconds: a candidate that takes longer to build is given up.
        run_timeout_seconds: likewise for the runs of one stage.

    Attributes:
        pool: the worker processes; while nothing is measured they may do other work.
    """

    def __init__(
        self,
        device: Device,
        *,
        workers: int | None = None,
        build_timeout_seconds: float = 10.0,
        run_timeout_seconds: float = 10.0,
    ) -> None:
        self._device = device
        self.pool = WorkerPool(workers=workers or device.threads, threads=device.threads)
        self._build_timeout = build_timeout_seconds
        self._run_timeout = run_timeout_seconds
        self._folder = tempfile.TemporaryDirectory(prefix="tunebank-")
        self._references: set[str] = set()
        self._index_positions: dict[str, list[int]] = {}

    def start(self) -> None:
        """Starts the workers and returns at once; else they start with the first batch.

        Call it from a thread that outlives the measurer: on Linux the workers end with it.
        """
        self.pool.start()

    def wait_until_ready(self) -> None:
        """Waits for the workers, whose start would else count as search time.

        Raises:
            MeasurementError: one does not start.
        """
        self.pool.wait_until_ready()

    def close(self) -> None:
        """Ends the workers."""
        self.pool.close()
        self._folder.cleanup()

    def measure(
        self, candidates: Sequence[Scheduled], *, best_us: dict[str, float]
    ) -> list[Measurement]:
        """See `Measurer.measure`."""
        jobs = [_Job(candidate, uuid.uuid4().hex) for candidate in candidates]
        # A worker that dies takes the programs it had built with it: those are built again.
        while pending := [job for job in jobs if job.result is None]:
            self._build_all(pending)
            self._look_at_all([job for job in pending if job.result is None])
        self._confirm(jobs, best_us)
        self._drop(jobs)
        return [replace(_result(job), stage_seconds=job.stage_seconds) for job in jobs]

    # -- stages

    def _build_all(self, jobs: Sequence[_Job]) -> None:
        tasks = [self._build_task(job) for job in jobs]
        kernels = {job.key: job.candidate.kernel for job in jobs}
        missing = [kernel for key, kernel in kernels.items() if key not in self._references]
        serve(self.pool.workers, [*(self._reference_task(kernel) for kernel in missing), *tasks])

    def _load_again(self, jobs: Iterable[_Job]) -> None:
        """Builds those again that were lost with a worker that another program killed."""
        lost = [job for job in jobs if not job.is_loaded]
        if lost:
            self._build_all(lost)

    def _look_at_all(self, jobs: Sequence[_Job]) -> None:
        for job in jobs:
            samples = self._run(job, LOOK_RUNS)
            if samples is not None:
                job.result = Measurement("ok", samples)

    def _confirm(self, jobs: Sequence[_Job], best_us: dict[str, float]) -> None:
        """Repeats and checks the contenders; then those that looked faster than these proved."""
        checked_us, waiting = dict(best_us), list(jobs)
        while contenders := _contenders(waiting, best_us):
            self._check([job for job in contenders if self._repeat(job)], checked_us)
            waiting = [
                job
                for job in waiting
                if job not in contenders and job.latency_us < checked_us.get(job.key, math.inf)
            ]

    def _repeat(self, job: _Job) -> bool:
        """Whether it could be run again."""
        self._load_again([job])
        samples = self._run(job, REPEAT_RUNS)
        if samples is not None:
            job.result = Measurement("ok", samples)
        return samples is not None

    def _check(self, contenders: Sequence[_Job], checked_us: dict[str, float]) -> None:
        """Compares the numbers of those that would be chosen, kernel by kernel."""
        waiting = sorted(contenders, key=lambda job: job.latency_us)
        while waiting:
            first: dict[str, _Job] = {}
            for job in waiting:
                if job.latency_us < checked_us.get(job.key, math.inf):
                    first.setdefault(job.key, job)
            self._load_again(first.values())
            serve(
                self.pool.workers,
                [self._check_task(job) for job in first.values() if job.is_loaded],
            )
            for key, job in first.items():
                if _result(job).checked:
                    checked_us[key] = job.latency_us
            waiting = [job for job in waiting if first and not job.is_asked]

    def _run(self, job: _Job, runs: int) -> tuple[float, ...] | None:
        """Latencies in microseconds; None if the job failed or must be built again."""
        samples: tuple[float, ...] | None = None

        def keep(_: WorkerProcess, answer: Message) -> None:
            nonlocal samples
            _note(job, answer)
            samples = tuple(float(value) for value in answer["samples_us"])

        if not job.is_loaded:
            return None
        request: Message = {"op": "run", "ticket": job.ticket, "runs": runs}
        task = Task(
            lambda: request, keep, job.fail, "run_failed", self._run_timeout, worker=job.worker
        )
        serve(self.pool.workers, [task])
        return samples

    def _drop(self, jobs: Sequence[_Job]) -> None:
        for worker in self.pool.workers:
            tickets = [job.ticket for job in jobs if job.worker is worker and job.is_loaded]
            if tickets:
                worker.send({"op": "drop", "tickets": tickets}, timeout_seconds=self._run_timeout)
                receive(worker)

    # -- tasks

    def _build_task(self, job: _Job) -> Task:
        def request() -> Message:
            return {
                "op": "build",
                "ticket": job.ticket,
                "module": str(ir.save_json(job.candidate.module)),
                "target": self._device.target,
                "indices": self._indices(job.candidate.kernel),
            }

        def keep(worker: WorkerProcess, answer: Message) -> None:
            job.worker, job.generation = worker, worker.generation
            _note(job, answer)

        return Task(request, keep, job.fail, "build_failed", self._build_timeout)

    def _reference_task(self, kernel: Kernel) -> Task:
        """Makes the numbers to compare with; without them nothing of the kernel is checked."""

        def request() -> Message:
            return {
                "op": "reference",
                "file": self._reference_file(kernel),
                "module": str(ir.save_json(reference_module(kernel))),
                "outputs": output_positions(kernel),
                "target": self._device.target,
                "indices": self._indices(kernel),
            }

        def keep(_: WorkerProcess, __: Message) -> None:
            self._references.add(kernel.key)

        def ignore(_: Status, __: str) -> None:
            """Tried again with the next batch."""

        return Task(request, keep, ignore, "build_failed", 2 * self._build_timeout)

    def _check_task(self, job: _Job) -> Task:
        kernel = job.candidate.kernel

        def request() -> Message:
            job.is_asked = True
            return {
                "op": "check",
                "ticket": job.ticket,
                "file": self._reference_file(kernel),
                "outputs": output_positions(kernel),
                "rounding": rounding_of(kernel),
            }

        def judge(_: WorkerProcess, answer: Message) -> None:
            _note(job, answer)
            if answer["agrees"]:
                job.result = replace(_result(job), checked=True)
            else:
                job.fail("wrong", f"differs from the reference: {answer['said']}")

        def fail(status: Status, error: str) -> None:
            if kernel.key in self._references:
                job.fail(status, error)  # else it can't be told, and the job stays unchecked

        return Task(
            request,
            judge,
            fail,
            "run_failed",
            self._run_timeout,
            worker=job.worker,
            is_void=lambda: not job.is_loaded,
        )

    def _indices(self, kernel: Kernel) -> list[int]:
        """Which of the kernel's parameters are indices; read once, asked for each candidate."""
        if kernel.key not in self._index_positions:
            self._index_positions[kernel.key] = index_positions(kernel.func)
        return self._index_positions[kernel.key]

    def _reference_file(self, kernel: Kernel) -> str:
        return f"{self._folder.name}/{kernel.key}.npz"


def _contenders(jobs: Sequence[_Job], best_us: dict[str, float]) -> list[_Job]:
    """Those whose first look is near the best of their kernel."""
    ran = [job for job in jobs if _result(job).status == "ok"]
    best = dict(best_us)
    for job in ran:
        best[job.key] = min(best.get(job.key, math.inf), *_result(job).samples_us)
    return [job for job in ran if min(_result(job).samples_us) <= CONTENDER_RATIO * best[job.key]]


def rounding_of(kernel: Kernel) -> float:
    """Relative error to expect between two schedules of a kernel; 0 for one of integers alone."""
    expected = math.sqrt(2.0 * rounding_variance(kernel.func))
    return max(expected, LEAST_FLOAT_ROUNDING) if expected else 0.0


def _note(job: _Job, answer: Message) -> None:
    for name, value in answer.items():
        if name.endswith("_seconds"):
            stage = name.removesuffix("_seconds")
            job.stage_seconds[stage] = job.stage_seconds.get(stage, 0.0) + float(value)


def _result(job: _Job) -> Measurement:
    assert job.result is not None
    return job.result
