"""The work of the commands as functions: compile, tune, plan, bench.

Each checks first what can be wrong (the output, the compiler, the model, the banks), so that
nothing fails after minutes of search. `report` is called with lines of text and with the
`Progress` of a search.
"""

from tunebank.api.benching import bench_artifact, profile_artifact
from tunebank.api.compiling import compile_model
from tunebank.api.planning import default_plan, plan_model
from tunebank.api.tuning import tune_model
from tunebank.results import BenchResult, CompileResult, PlanResult, ProfileResult, TuneResult

__all__ = [
    "BenchResult",
    "CompileResult",
    "PlanResult",
    "ProfileResult",
    "TuneResult",
    "bench_artifact",
    "compile_model",
    "default_plan",
    "plan_model",
    "profile_artifact",
    "tune_model",
]
