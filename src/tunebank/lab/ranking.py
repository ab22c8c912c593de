"""Which order of schedules is better before anything is measured: the estimate, or a learnt one?

For each model a cost model learns from the trials of all other architectures, as the one that is
shipped does from all (`transfer.pretraining`). The trials of the model's own kernels are then put
in order by it, by the estimate that stands in where there is none, and by lot:

    regret of k    how many times slower the fastest of an order's first k is than that of all
    recall of k    the share of the fastest k that is among an order's first k

Trials that an order takes for equal stay as they come, and they come in an order that tells
nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tunebank.bank import open_banks
from tunebank.device import Device, detect_device
from tunebank.errors import UsageError
from tunebank.lab.tables import TableData
from tunebank.lab.zoo import ZOO, same_architecture
from tunebank.transfer.pretrained import Floats
from tunebank.transfer.pretraining import KernelTrials, kernel_trials, learn

ORDERS = ("estimate", "learnt", "random")
_LEAST_TRIALS = 24
_FIRST = 5
_BEST = 8


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
        report("reading the trials")
        trials = kernel_trials(bank.find())
    rankings = []
    for name in names or ZOO:
        hidden = same_architecture(name)
        own = [k for k in trials if k.sources & hidden and _is_judged(k, device)]
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


def _is_judged(kernel: KernelTrials, device: Device) -> bool:
    return kernel.device == device.fingerprint and len(kernel.octaves) >= _LEAST_TRIALS


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
    model = learn(others, threads=threads)
    lot = np.random.default_rng(0)
    scores = (
        [kernel.estimate for kernel in own],
        [model.octaves(kernel.features) for kernel in own],
        [lot.random(len(kernel.octaves), np.float32) for kernel in own],
    )
    octaves = [kernel.octaves for kernel in own]
    return Ranking(
        model=name,
        kernels=len(own),
        trained_on=sum(len(kernel.octaves) for kernel in others),
        orders={n: standing(given, octaves) for n, given in zip(ORDERS, scores, strict=True)},
    )


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
