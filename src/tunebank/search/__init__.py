"""Plans: found by reuse within a time budget, or by auto-scheduling from scratch."""

from tunebank.search.deposit import deposit_given_up
from tunebank.search.plan import Choice, GivenUp, Plan
from tunebank.search.reuse import reuse
from tunebank.search.settings import Progress, ReuseSettings
from tunebank.search.tune import TuneProgress, tune
from tunebank.search.tune_task import TuneSettings

__all__ = [
    "Choice",
    "GivenUp",
    "Plan",
    "Progress",
    "ReuseSettings",
    "TuneProgress",
    "TuneSettings",
    "deposit_given_up",
    "reuse",
    "tune",
]
