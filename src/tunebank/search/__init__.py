"""Plans: found by reuse within a time budget, or by auto-scheduling from scratch."""

from tunebank.search.plan import Choice, Plan
from tunebank.search.reuse import reuse
from tunebank.search.settings import Progress, ReuseSettings
from tunebank.search.tune import TuneProgress, tune
from tunebank.search.tune_task import TuneSettings

__all__ = [
    "Choice",
    "Plan",
    "Progress",
    "ReuseSettings",
    "TuneProgress",
    "TuneSettings",
    "reuse",
    "tune",
]
