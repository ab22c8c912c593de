"""Which order of schedules is better before anything is measured: the estimate, or a learnt one?

For each model XGBoost learns from the trials of all other architectures how many octaves a schedule
is slower than the best of its kernel, from TVM's per-store features (Ansor, arXiv 2006.06762,
section 5.2). The trials of the model's own kernels are then put in order by it, by the estimate
that `transfer.rank` uses, and by lot:

    regret of k    how many times slower the fastest of an order's first k is than that of all
    recall of k    the share of the fastest k that is among an order's first k
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tvm.s_tir.meta_schedule.feature_extractor import PerStoreFeature

from tunebank.bank import Bank, Record, open_banks
from tunebank.device import Device, detect_device
from tunebank.errors import UsageError
from tunebank.kernel import Kernel
from tunebank.lab.tables import TableData
from tunebank.lab.zoo import ZOO, same_architecture
from tunebank.schedule import IllegalScheduleError, Scheduled, Space, Trace
from tunebank.schedule.estimate import expected_octaves
from tunebank.search.evolution import tvm_candidate

ORDERS = ("estimate", "learnt", "random")
_LEAST_TRIALS = 24
_FIRST = 5
_BEST = 8
_OPERATIONS = slice(0, 3)
"""Features of a store that count its multiplications and additions."""
_MOST_OCTAVES = 3.0
_ROUNDS = 300
_PARAMETERS = {
    "objective": "reg:squarederror",
    "max_depth": 8,
    "eta": 0.06,
    "subsample": 0.8,
    "colsample_bytree": 0.5,
    "min_child_weight": 4,
    "seed": 0,
}

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class KernelTrials:
    """The trials of one kernel.

    Attributes:
        sources: the models that they were made for.
        features: (trials, features).
        estimate: (trials,), expected octaves.
        octaves: (trials,), measured: log2 of the latency over the least.
    """

    sources: frozenset[str]
    features: Floats
    estimate: Floats
    octaves: Floats


@dataclass(frozen=True)
class Standing:
    """How good an order is, over the kernels of a model.

    Attributes:
        regret_of_first: geometric mean.
        regret_of_five: geometric mean.
        recall_of_eight: mean.
    """

    regret_of_first: float
    regret_of_five: float
    recall_of_eight: float


@dataclass(frozen=True)
class Ranking:
    """The orders of one model's trials.

    Attributes:
        model: its name.
        kernels: how many have enough trials.
        trained_on: trials of other architectures.
        orders: by the names in `ORDERS`.
    """

    model: str
    kernels: int
    trained_on: int
    orders: Mapping[str, Standing]


def rank_models(
    names: Sequence[str],
    *,
    url: str,
    target: str = "auto",
    threads: int | None = None,
    report: Callable[[str], None] = lambda text: None,
) -> list[Ranking]:
    """Compares the orders for each model that has trials in the bank.

    Args:
        names: the models; none takes the thirteen.
        url: the bank.
        target: see `tunebank.device.detect_device`; trials on this device count.
        threads: likewise.
        report: called with a line of text.

    Raises:
        UsageError: the bank has no model with enough trials.
        BankError: the bank can't be read.
    """
    device = detect_device(target, threads=threads)
    with open_banks([url], include_shipped=False, create=False) as bank:
        trials = collect(bank, device, report=report)
    rankings = []
    for name in names or ZOO:
        hidden = same_architecture(name)
        own = [kernel for kernel in trials if kernel.sources & hidden]
        others = [kernel for kernel in trials if not kernel.sources & hidden]
        if own and others:
            report(f"{name}: learning from the others")
            rankings.append(_ranking(name, own, others, device.threads))
    if not rankings:
        raise UsageError(
            f"{url}: no model with {_LEAST_TRIALS} trials of a kernel beside others; "
            "`tunebank lab tune` makes them"
        )
    return rankings


def collect(
    bank: Bank, device: Device, *, report: Callable[[str], None] = lambda text: None
) -> list[KernelTrials]:
    """The trials of all kernels that have enough of them, replayed for their features."""
    groups: dict[str, list[Record]] = {}
    for record in bank.find():
        if record.device == device.fingerprint:
            groups.setdefault(record.kernel_key, []).append(record)
    enough = [records for records in groups.values() if len(records) >= _LEAST_TRIALS]
    found = []
    for number, records in enumerate(enough):
        report(f"{number} of {len(enough)} kernels: features of {records[0].kernel_name}")
        found.append(_trials(records, device))
    return [one for one in found if len(one.octaves) >= _LEAST_TRIALS]


def standing(scores: Iterable[Floats], octaves: Iterable[Floats]) -> Standing:
    """How good an order is.

    Args:
        scores: by kernel (trials,); the lowest comes first.
        octaves: by kernel (trials,); measured.
    """
    first, five, recall = [], [], []
    for score, measured in zip(scores, octaves, strict=True):
        order = np.argsort(score, kind="stable")
        least = float(measured.min())
        first.append(float(measured[order[0]]) - least)
        five.append(float(measured[order[:_FIRST]].min()) - least)
        best = set(np.argsort(measured, kind="stable")[:_BEST].tolist())
        recall.append(len(best & set(order[:_BEST].tolist())) / len(best))
    return Standing(
        2.0 ** statistics.fmean(first), 2.0 ** statistics.fmean(five), statistics.fmean(recall)
    )


def _ranking(
    name: str, own: Sequence[KernelTrials], others: Sequence[KernelTrials], threads: int
) -> Ranking:
    predict = _learnt(others, threads)
    lot = np.random.default_rng(0)
    scores = (
        [kernel.estimate for kernel in own],
        [predict(kernel.features) for kernel in own],
        [lot.random(len(kernel.octaves), np.float32) for kernel in own],
    )
    octaves = [kernel.octaves for kernel in own]
    return Ranking(
        model=name,
        kernels=len(own),
        trained_on=sum(len(kernel.octaves) for kernel in others),
        orders={n: standing(given, octaves) for n, given in zip(ORDERS, scores, strict=True)},
    )


def _learnt(kernels: Sequence[KernelTrials], threads: int) -> Callable[[Floats], Floats]:
    """A predictor of octaves. Good schedules weigh more; how bad the bad ones are is no matter."""
    import xgboost

    octaves = np.minimum(np.concatenate([kernel.octaves for kernel in kernels]), _MOST_OCTAVES)
    features = np.concatenate([kernel.features for kernel in kernels])
    data = xgboost.DMatrix(features, octaves, weight=2.0 ** (-0.5 * octaves))
    booster = xgboost.train({**_PARAMETERS, "nthread": threads}, data, _ROUNDS)

    def predict(features: Floats) -> Floats:
        predicted: Floats = booster.predict(xgboost.DMatrix(features))
        return predicted

    return predict


def _trials(records: Sequence[Record], device: Device) -> KernelTrials:
    """A kernel's records replayed; a schedule that several models have is taken once."""
    kernel = Kernel.from_ir(records[0].kernel_ir, name=records[0].kernel_name)
    space = Space(kernel, device)
    latencies = {record.trace: record.latency_us or 0.0 for record in records}
    features, estimate, measured = [], [], []
    for text, latency_us in latencies.items():
        try:
            scheduled = space.apply(Trace.from_text(text))
        except (IllegalScheduleError, ValueError):
            continue
        if scheduled.schedule is None:
            continue  # a program of its own has no features
        features.append(_features(space, scheduled))
        estimate.append(expected_octaves(scheduled.trace, kernel, device))
        measured.append(latency_us)
    latency = np.array(measured, np.float32)
    return KernelTrials(
        frozenset(record.source for record in records),
        np.array(features, np.float32),
        np.array(estimate, np.float32),
        np.log2(latency / latency.min()) if measured else latency,
    )


def _features(space: Space, scheduled: Scheduled) -> Floats:
    """Those of the store that computes most, the largest of the others, and how many there are."""
    (stores,) = PerStoreFeature().extract_from(space.context, [tvm_candidate(scheduled)])
    rows: Floats = np.asarray(stores.numpy(), np.float32)
    most = int(np.argmax(rows[:, _OPERATIONS].max(axis=1)))
    others = np.delete(rows, most, axis=0)
    largest = others.max(axis=0) if len(others) else np.zeros_like(rows[most])
    return np.concatenate([rows[most], largest, np.array([len(rows)], np.float32)])


def ranking_table(rankings: Sequence[Ranking]) -> TableData:
    """A row for each model, and the means."""
    rows = [(one.model, str(one.kernels), *map(_cell, one.orders.values())) for one in rankings]
    means = [_mean([one.orders[order] for one in rankings]) for order in ORDERS]
    return TableData(
        "Orders of schedules: regret of the first / of the first five / recall of the best eight",
        ("model", "kernels", *ORDERS),
        (*rows, ("mean", "", *map(_cell, means))),
        "Regret 1 and recall 1 are perfect.",
    )


def _mean(standings: Sequence[Standing]) -> Standing:
    return Standing(
        statistics.geometric_mean([one.regret_of_first for one in standings]),
        statistics.geometric_mean([one.regret_of_five for one in standings]),
        statistics.fmean([one.recall_of_eight for one in standings]),
    )


def _cell(one: Standing) -> str:
    return f"{one.regret_of_first:.2f} / {one.regret_of_five:.2f} / {one.recall_of_eight:.2f}"
