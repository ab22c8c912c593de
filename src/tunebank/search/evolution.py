"""Evolutionary search on one kernel: MetaSchedule's, on our workers, from our seeds.

It serves twice. From scratch it is the full auto-scheduler that fills a bank. With a small
population and measured schedules to start from it is the local search that refines transferred
ones: MetaSchedule then takes its parents from what was measured, and mutates their tile
factors, unrolling and compute locations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm.s_tir.meta_schedule import TuneContext
from tvm.s_tir.meta_schedule.arg_info import ArgInfo
from tvm.s_tir.meta_schedule.cost_model.xgb_model import XGBConfig, XGBModel
from tvm.s_tir.meta_schedule.database import MemoryDatabase, TuningRecord
from tvm.s_tir.meta_schedule.feature_extractor import PerStoreFeature
from tvm.s_tir.meta_schedule.runner import RunnerResult
from tvm.s_tir.meta_schedule.search_strategy import EvolutionarySearch, MeasureCandidate

from tunebank import _tvm
from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.measure import Measurement
from tunebank.schedule import Scheduled, Space

FAILED_SECONDS = 1e10  # MetaSchedule's mark of a failure
_MAX_TRIALS = 1_000_000
_NEVER = 10**12

_Sample = tuple[Scheduled, Measurement]


@dataclass(frozen=True)
class EvolutionSettings:
    """How widely to search.

    Attributes:
        population: schedules kept per generation.
        generations: generations per batch of proposals.
        measured_share: share of the first generation taken from measured schedules.
        batch: proposals per batch.
    """

    population: int
    generations: int
    measured_share: float
    batch: int


FROM_SCRATCH = EvolutionSettings(population=96, generations=2, measured_share=0.3, batch=16)
REFINE = EvolutionSettings(population=24, generations=1, measured_share=0.8, batch=8)


class CostModel:
    """Predicts how schedules compare within their kernel; learns from each measurement.

    XGBoost on TVM's per-store features (Ansor, arXiv 2006.06762, section 5.2), one model for
    all kernels, normalised per kernel. What it is given is learnt when it is next asked: features
    and training cost about as much as building a few candidates.
    """

    def __init__(self, device: Device, *, warm_up: int = 24) -> None:
        self._model = XGBModel(
            config=XGBConfig(max_depth=6, eta=0.3, nthread=device.threads),
            extractor=PerStoreFeature(),
            num_warmup_samples=warm_up,
            num_tuning_cores=device.threads,
            early_stopping_rounds=8,
            average_peak_n=32,
        )
        self._waiting: dict[str, tuple[TuneContext, list[_Sample]]] = {}

    def learn(self, context: TuneContext, measured: Sequence[_Sample], *, kernel_key: str) -> None:
        """Takes in measurements of one kernel; of programs that are not of its space none."""
        known = [pair for pair in measured if pair[0].schedule is not None]
        if known:
            self._waiting.setdefault(kernel_key, (context, []))[1].extend(known)

    def train(self) -> XGBModel:
        """Learns what was taken in; returns TVM's model."""
        if self._waiting:
            *others, last = self._waiting.values()
            self._waiting = {}
            trained_at, self._model.last_train_size = self._model.last_train_size, _NEVER
            for context, samples in others:
                self._update(context, samples)
            # TVM trains at an update if the data has grown by a fifth since; let it, once.
            self._model.last_train_size = trained_at
            self._update(*last)
        return self._model

    def _update(self, context: TuneContext, samples: Sequence[_Sample]) -> None:
        candidates = [_tvm_candidate(scheduled) for scheduled, _ in samples]
        self._model.update(context, candidates, [_tvm_result(result) for _, result in samples])


class Evolution:
    """Evolutionary search on one kernel. Not thread-safe."""

    def __init__(
        self, kernel: Kernel, device: Device, cost_model: CostModel, settings: EvolutionSettings
    ) -> None:
        self._cost_model = cost_model
        strategy = EvolutionarySearch(
            population_size=settings.population,
            init_measured_ratio=settings.measured_share,
            init_min_unmeasured=max(4, settings.population // 8),
            max_fail_count=5,
            genetic_num_iters=settings.generations,
            genetic_mutate_prob=0.85,
            genetic_max_fail_count=10,
            eps_greedy=0.05,
        )
        self.space = Space(kernel, device, strategy=strategy)
        self._database = MemoryDatabase()
        self._workload = self._database.commit_workload(kernel.module)
        self._settings = settings
        self._started = False

    def observe(self, measured: Sequence[tuple[Scheduled, Measurement]]) -> None:
        """Takes in measurements, whoever proposed the schedules.

        Those of programs that are not of its space are no parents.
        """
        for scheduled, result in measured:
            if scheduled.schedule is None:
                continue
            self._database.commit_tuning_record(
                TuningRecord(
                    scheduled.schedule.trace,
                    self._workload,
                    _tvm_result(result).run_secs or [FAILED_SECONDS],
                    self.space.context.target,
                    ArgInfo.from_prim_func(scheduled.kernel.func),
                )
            )

    def propose(self) -> list[Scheduled]:
        """A batch of new schedules; empty if the space is exhausted."""
        context = self.space.context
        cost_model = self._cost_model.train()
        if not self._started:
            context.pre_tuning(
                max_trials=_MAX_TRIALS,
                num_trials_per_iter=self._settings.batch,
                design_spaces=_tvm.sketches_of(context),
                database=self._database,
                cost_model=cost_model,
            )
            self._started = True
        candidates = context.generate_measure_candidates() or []
        # The measurements come back through `observe`; the strategy counts trials alone here.
        context.notify_runner_results(candidates, [RunnerResult([1.0], None) for _ in candidates])
        return [Scheduled.from_schedule(self.space.kernel, one.sch) for one in candidates]


def _tvm_candidate(scheduled: Scheduled) -> MeasureCandidate:
    """A schedule of MetaSchedule's space as its cost models and feature extractors take it."""
    return MeasureCandidate(scheduled.schedule, ArgInfo.from_prim_func(scheduled.kernel.func))


def _tvm_result(result: Measurement) -> RunnerResult:
    if result.latency_us is None:
        return RunnerResult(None, result.error or result.status)
    return RunnerResult([result.latency_us * 1e-6], None)
