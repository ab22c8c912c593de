"""A cost model trained on the measurements in a bank, before it is needed.

    learn     all trials of a bank, from nothing: what the package ships
    refresh   the trials of this machine, on top of the model that there is, whenever they have
              grown by a fifth: trees that correct it for the own machine and models

XGBoost learns how many octaves a schedule is slower than the best of its kernel and device, which
makes kernels comparable. Good schedules weigh more: how bad the bad ones are is no matter.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunebank.bank import Bank, Record
from tunebank.device import Device, recorded_device
from tunebank.kernel import Kernel
from tunebank.schedule import Trace
from tunebank.schedule.features import FEATURES, Features, features
from tunebank.schedule.programs import is_own_program
from tunebank.transfer.pretrained import Floats, Part, PretrainedModel, Tree, pretrained

_LEAST_TRIALS = 8
"""Of how many schedules of a kernel on a device the best is taken for the best there is."""
_GROWTH = 1.2
_LEAST_OF_A_MACHINE = 256
_MOST_OF_A_MACHINE = 6000
"""So many take some six seconds to learn from; of more, the kernels measured last count."""
_TREES = 300
_TREES_OF_A_MACHINE, _TRIALS_PER_TREE = 100, 10
_MOST_OCTAVES = 3.0
_PARAMETERS = {
    "objective": "reg:squarederror",
    "base_score": 0.0,
    "max_depth": 6,
    "eta": 0.05,
    "subsample": 0.7,
    "colsample_bytree": 0.5,
    "min_child_weight": 4,
    "seed": 0,
}


@dataclass(frozen=True)
class KernelTrials:
    """The trials of one kernel on one device; each schedule once.

    Attributes:
        sources: the models that they were made for.
        device: its fingerprint.
        features: (trials, features), of `schedule.features`.
        octaves: (trials,), measured: log2 of the latency over the least.
    """

    sources: frozenset[str]
    device: str
    features: Features
    octaves: Floats

    @property
    def estimate(self) -> Floats:
        """(trials,), the octaves that `schedule.estimate` expects."""
        expected: Floats = self.features[:, FEATURES.index("expected")]
        return expected


def learn(trials: Sequence[KernelTrials], *, threads: int) -> PretrainedModel:
    """A cost model of some trials alone.

    Args:
        trials: at least one kernel's.
        threads: threads to learn with.
    """
    octaves = _target(trials)
    base = float(np.average(octaves, weights=_weights(octaves)))
    without = np.full(len(octaves), base, np.float32)
    general = _part(trials, without, trees=_TREES, threads=threads)
    return _levelled(PretrainedModel(base=base, general=general), trials)


def is_behind(bank: Bank, device: Device) -> bool:
    """Whether what was measured here has grown by a fifth since the bank's cost model learnt.

    Raises:
        BankError: the bank can't be read.
    """
    current = pretrained(bank)
    known = current.seen if current is not None else 0
    return _measured(bank, device) >= max(_LEAST_OF_A_MACHINE, _GROWTH * known)


def refresh(bank: Bank, device: Device) -> PretrainedModel | None:
    """Lets a bank's cost model learn what was measured here, and keeps it in the bank.

    Returns:
        the new model; None if no kernel has enough trials.

    Raises:
        BankError: the bank can't be read or written.
    """
    current = pretrained(bank)
    measured = _measured(bank, device)
    trials = kernel_trials(_latest(r for r in bank.find() if r.device == device.fingerprint))
    if not trials:
        return None
    if current is None:
        model = learn(trials, threads=device.threads)
    else:
        stem = current.model_copy(update={"own": None})
        expected = np.concatenate([stem.octaves(kernel.features) for kernel in trials])
        trees = min(_TREES_OF_A_MACHINE, len(expected) // _TRIALS_PER_TREE + 1)
        own = _part(trials, expected, trees=trees, threads=device.threads)
        model = _levelled(stem.model_copy(update={"own": own}), trials)
    model = model.model_copy(update={"seen": measured})
    bank.set_cost_model(model.model_dump_json())
    return model


def kernel_trials(records: Iterable[Record]) -> list[KernelTrials]:
    """The trials of all kernels that have enough of them on a device.

    Programs of their own are left out: the cost model does not see into them.

    Args:
        records: successful ones, in any order.
    """
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record.kernel_key, record.device), []).append(record)
    found = (_trials(group) for group in groups.values() if len(group) >= _LEAST_TRIALS)
    return [one for one in found if one is not None and len(one.octaves) >= _LEAST_TRIALS]


def _trials(records: Sequence[Record]) -> KernelTrials | None:
    """A kernel's records on one device; None if they can't be read, as a stranger's may be."""
    try:
        return _read_trials(records)
    except Exception:  # TVM raises whatever its C++ side threw
        return None


def _read_trials(records: Sequence[Record]) -> KernelTrials | None:
    first = records[0]
    device = recorded_device(first.target, threads=first.threads, fingerprint=first.device)
    if device is None:
        return None
    kernel = Kernel.from_ir(first.kernel_ir, name=first.kernel_name)
    fastest: dict[str, float] = {}
    for record in records:
        latency_us = record.latency_us or math.inf
        fastest[record.trace] = min(latency_us, fastest.get(record.trace, math.inf))
    read = {text: Trace.from_text(text) for text in fastest}
    texts = [text for text, trace in read.items() if not is_own_program(trace)]
    # In an order that tells nothing: a bank gives the fastest first, and ties stay as they come.
    texts.sort(key=lambda text: hashlib.sha256(text.encode()).digest())
    latency = np.array([fastest[text] for text in texts], np.float32)
    return KernelTrials(
        frozenset(record.source for record in records),
        first.device,
        features([read[text] for text in texts], kernel, device),
        np.log2(latency / latency.min()) if texts else latency,
    )


def _latest(records: Iterable[Record]) -> list[Record]:
    """Those of the kernels that were measured last."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.kernel_key, []).append(record)
    latest: list[Record] = []
    for group in sorted(groups.values(), key=_last_measured, reverse=True):
        if latest and len(latest) + len(group) > _MOST_OF_A_MACHINE:
            break
        latest.extend(group)
    return latest


def _last_measured(records: Iterable[Record]) -> str:
    return max(record.created_at for record in records)


def _measured(bank: Bank, device: Device) -> int:
    return bank.stats().devices.get(device.fingerprint, 0)


def _part(trials: Sequence[KernelTrials], expected: Floats, *, trees: int, threads: int) -> Part:
    """What there is to learn from some trials beyond what is expected of them.

    Args:
        trials: what to learn.
        expected: (trials of all kernels,), octaves.
        trees: how many to grow.
        threads: threads to learn with.
    """
    import xgboost

    octaves = _target(trials)
    rows = np.concatenate([kernel.features for kernel in trials])
    data = xgboost.DMatrix(rows, octaves, weight=_weights(octaves), base_margin=expected)
    booster = xgboost.train({**_PARAMETERS, "nthread": threads}, data, trees)
    learnt = json.loads(bytes(booster.save_raw("json")))
    counts: Counter[str] = Counter()
    for kernel in trials:
        counts[kernel.device] += len(kernel.octaves)
    return Part(
        trials=dict(counts),
        sources=tuple(sorted({source for kernel in trials for source in kernel.sources})),
        trees=tuple(map(_tree, learnt["learner"]["gradient_booster"]["model"]["trees"])),
    )


def _tree(grown: dict[str, Any]) -> Tree:
    """A tree of XGBoost's as ours."""
    return Tree(
        left=grown["left_children"],
        right=grown["right_children"],
        feature=grown["split_indices"],
        value=grown["split_conditions"],
        missing_left=[bool(flag) for flag in grown["default_left"]],
    )


def _levelled(model: PretrainedModel, trials: Iterable[KernelTrials]) -> PretrainedModel:
    """The model with its level on some trials; see `PretrainedModel.least`."""
    least = [float(model.octaves(kernel.features).min()) for kernel in trials]
    return model.model_copy(update={"least": statistics.fmean(least)})


def _target(trials: Sequence[KernelTrials]) -> Floats:
    """What is learnt: octaves, but no more than matter."""
    octaves: Floats = np.concatenate([kernel.octaves for kernel in trials])
    return np.minimum(octaves, np.float32(_MOST_OCTAVES))


def _weights(octaves: Floats) -> Floats:
    weights: Floats = np.exp2(-octaves)
    return weights
