"""The banks inside the package: one for each width of vectors, chosen by the CPU."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from tunebank.device import cpu_flags

_TIERS = {16: "x86-64-avx512.db", 8: "x86-64-avx2.db"}
"""By float32 values in a vector register, the bank whose schedules were found with it."""
_FLAGS = {16: "avx512f", 8: "avx2"}


def shipped_banks(vector_lanes: int | None = None) -> list[Path]:
    """The banks inside the package.

    Args:
        vector_lanes: float32 values in a vector register of the CPU that is compiled for; its
            tier alone is named then, if there is one. None names all.
    """
    folder = resources.files("tunebank.bank") / "data"
    if not folder.is_dir():
        return []
    files = sorted(Path(str(file)) for file in folder.iterdir() if file.name.endswith(".db"))
    own = [file for file in files if file.name == _TIERS.get(vector_lanes or 0)]
    return own or files


def vector_lanes_here() -> int | None:
    """Float32 values in a vector register of this machine; None if no tier is for it."""
    flags = cpu_flags()
    return next((lanes for lanes, flag in _FLAGS.items() if flag in flags), None)
