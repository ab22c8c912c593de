"""Contestants timed against each other in one process, in turns.

TVM and ONNX Runtime both keep a pool of threads that go on spinning after a run, to be quick at
the next: about 15 ms for TVM, 20 to 50 ms for ONNX Runtime. Run in direct turns each finds its
cores taken by the other: on two cores the first ResNet-50 run after ONNX Runtime's took 90 ms
where the following ones took 54 ms, and ONNX Runtime's after TVM's 55 ms instead of 42 ms.
So a contestant's turn is a block of runs,

    pause 100 ms   the other's threads have gone to sleep
    one run        not counted: it wakes the own threads and fills the caches
    runs           counted, one after another, as under load

and each contestant keeps its own pool as it comes, spinning included: that is how either is
deployed. The order is drawn anew in each round, so that a machine that grows slower or
faster favours nobody, and ratios are taken within rounds.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tunebank.runtime.feed import random_feed as random_feed

Contestant = Callable[[], object]
Feed = Mapping[str, np.ndarray[Any, Any]]

PAUSE_SECONDS = 0.1
_WARM_UP_RUNS = 2
_MIN_RUNS_PER_BLOCK = 3
_MAX_RUNS_PER_BLOCK = 1000
_RESAMPLES = 2000
_SEED = 0


@dataclass(frozen=True)
class LatencySamples:
    """Latencies of single runs.

    Attributes:
        rounds_ms: for each round the latencies in it, milliseconds.
    """

    rounds_ms: tuple[tuple[float, ...], ...]

    @property
    def samples_ms(self) -> tuple[float, ...]:
        """The latencies of all rounds."""
        return tuple(sample for block in self.rounds_ms for sample in block)

    @property
    def median_ms(self) -> float:
        """Median latency."""
        return statistics.median(self.samples_ms)

    @property
    def p90_ms(self) -> float:
        """Latency that nine runs of ten stay within."""
        return float(np.percentile(self.samples_ms, 90))


@dataclass(frozen=True)
class Ratio:
    """How many times longer one takes than another.

    Attributes:
        median: median over rounds of the ratio of their medians.
        low: lower end of the 95 % interval of that median, from bootstrap over rounds.
        high: upper end.
    """

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class RoundProgress:
    """A round that begins: which, counted from 1, and of how many. Shown to the user."""

    round: int
    rounds: int


def bench(
    contestants: Mapping[str, Contestant],
    *,
    rounds: int = 10,
    min_seconds: float = 2.0,
    pause_seconds: float = PAUSE_SECONDS,
    report: Callable[[RoundProgress], None] = lambda progress: None,
) -> dict[str, LatencySamples]:
    """Times contestants in turns; see the head of this file for how and why.

    Args:
        contestants: by name, what runs once.
        rounds: how many turns each gets.
        min_seconds: time that each is measured for at least, all rounds together.
        pause_seconds: rest before each turn.
        report: called before each round.

    Raises:
        ValueError: no contestants, or no rounds.
    """
    if not contestants or rounds < 1:
        raise ValueError("a comparison takes a contestant and a round")
    for run in contestants.values():
        for _ in range(_WARM_UP_RUNS):
            run()
    blocks: dict[str, list[tuple[float, ...]]] = {name: [] for name in contestants}
    order, draw = list(contestants), random.Random(_SEED)  # noqa: S311  no secret
    for index in range(rounds):
        report(RoundProgress(index + 1, rounds))
        draw.shuffle(order)
        for name in order:
            time.sleep(pause_seconds)
            blocks[name].append(_block(contestants[name], min_seconds / rounds))
    return {name: LatencySamples(tuple(blocks[name])) for name in contestants}


def measure_latency(run: Contestant, *, min_seconds: float) -> LatencySamples:
    """Times one contestant by itself; the first run is not counted."""
    return LatencySamples((_block(run, min_seconds),))


def ratio(slower: LatencySamples, faster: LatencySamples) -> Ratio:
    """How many times longer the first takes than the second, both of one `bench`."""
    pairs = zip(slower.rounds_ms, faster.rounds_ms, strict=True)
    ratios = np.array([statistics.median(a) / statistics.median(b) for a, b in pairs])
    generator = np.random.default_rng(_SEED)
    drawn = generator.choice(ratios, (_RESAMPLES, len(ratios)))
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
    return Ratio(float(np.median(ratios)), float(low), float(high))


def onnxruntime_contestant(model: Path, feed: Feed, *, threads: int) -> Contestant:
    """ONNX Runtime on a model file, with all its optimisations; a run returns the outputs.

    Raises:
        Exception: ONNX Runtime refuses the model.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    given = dict(feed)

    return lambda: session.run(None, given)


def _block(run: Contestant, min_seconds: float) -> tuple[float, ...]:
    """Latencies of consecutive runs, milliseconds; the first is not counted."""
    run()
    samples: list[float] = []
    end = time.perf_counter() + min_seconds
    while len(samples) < _MIN_RUNS_PER_BLOCK or (
        time.perf_counter() < end and len(samples) < _MAX_RUNS_PER_BLOCK
    ):
        start = time.perf_counter()
        run()
        samples.append(1e3 * (time.perf_counter() - start))
    return tuple(samples)
