"""Artifacts loaded and run. TVM is imported when a session is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunebank.runtime.manifest import Manifest, Tensor, is_artifact, read_manifest

if TYPE_CHECKING:
    from tunebank.runtime.session import Session, load

__all__ = ["Manifest", "Session", "Tensor", "is_artifact", "load", "read_manifest"]


def __getattr__(name: str) -> Any:
    if name in ("Session", "load"):
        from tunebank.runtime import session

        return getattr(session, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
