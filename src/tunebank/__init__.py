"""A bank of tuned schedules: compiles a new DNN at tuned speed in about a minute.

    import tunebank

    session = tunebank.load("resnet50.tuned")       # made by `tunebank compile`
    (scores,) = session.run(None, {"x": image})

Importing it is quick: TVM and NumPy are imported when something needs them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunebank._tvm import keep_torch_apart
from tunebank._version import __version__

keep_torch_apart()

if TYPE_CHECKING:
    from tunebank.api import (
        bench_artifact,
        compile_model,
        plan_model,
        profile_artifact,
        tune_model,
    )
    from tunebank.runtime.session import Session, load

__all__ = [
    "Session",
    "__version__",
    "bench_artifact",
    "compile_model",
    "load",
    "plan_model",
    "profile_artifact",
    "tune_model",
]

_HOMES = {
    "Session": "tunebank.runtime.session",
    "bench_artifact": "tunebank.api",
    "compile_model": "tunebank.api",
    "load": "tunebank.runtime.session",
    "plan_model": "tunebank.api",
    "profile_artifact": "tunebank.api",
    "tune_model": "tunebank.api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
