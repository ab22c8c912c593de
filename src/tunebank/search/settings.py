"""What the reuse loop is given, and what it tells while it runs."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from tunebank.search.plan import Plan


@dataclass(frozen=True)
class Progress:
    """How far a search is; shown to the user.

    Attributes:
        seconds: search time so far.
        budget_seconds: time budget.
        measured: candidates measured so far.
        kernels_us: sum of the best latencies, by weight; None before all are measured.
        plan: makes the plan that the search would end with now.
    """

    seconds: float
    budget_seconds: float
    measured: int
    kernels_us: float | None
    plan: Callable[[], Plan] = field(repr=False)


@dataclass(frozen=True)
class ReuseSettings:
    """What the search may use.

    Attributes:
        budget_seconds: search time allowed; 0 measures nothing.
        exclude_sources: models whose records are hidden.
        deposit: whether measurements are written to the bank.
        winograd: whether convolutions may be computed by Winograd's filtering, which is faster
            where it fits and rounds more.
        joins: whether a convolution and the window over its results may be made one kernel.
    """

    budget_seconds: float = 60.0
    exclude_sources: Collection[str] = ()
    deposit: bool = True
    winograd: bool = True
    joins: bool = True
