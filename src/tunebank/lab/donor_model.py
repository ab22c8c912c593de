"""The one model whose records serve another best: the heuristic of Gibson and Cano.

For a target and a donor model m (arXiv 2201.05587, section 4.2)

    score(m) = sum over kernel classes c of  P(c) * sqrt(S(c, m))

where P(c) is the share of the target's untuned time that its kernels of class c take, and S(c, m)
the number of schedules of that class that m has: one for each of its kernels, the best.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from tunebank.bank import Bank
from tunebank.kernel import Kernel


def donor_scores(shares: Mapping[str, float], bank: Bank) -> dict[str, float]:
    """The score of each model in the bank, highest first.

    Args:
        shares: by class key, the share of the target's untuned time; they sum to 1.
        bank: the donors, without those that must not serve.
    """
    scores = {source: _score(shares, bank, source) for source in bank.sources()}
    return dict(sorted(scores.items(), key=lambda item: (-item[1], item[0])))


def _score(shares: Mapping[str, float], bank: Bank, source: str) -> float:
    score = 0.0
    for class_key, share in shares.items():
        best = bank.find(class_key=class_key, source=source, best_per_kernel=1)
        score += share * math.sqrt(len({record.kernel_key for record in best}))
    return score


def class_shares(kernels: Iterable[Kernel], untuned_us: Mapping[str, float]) -> dict[str, float]:
    """By class key, the share of a model's untuned time.

    Args:
        kernels: the model's kernels.
        untuned_us: by kernel key, latency under the default schedule; kernels that are missing
            count nothing.
    """
    times: dict[str, float] = {}
    for kernel in kernels:
        time_us = kernel.weight * untuned_us.get(kernel.key, 0.0)
        times[kernel.class_key] = times.get(kernel.class_key, 0.0) + time_us
    total = sum(times.values())
    return {key: time_us / total for key, time_us in times.items()} if total else {}
