"""TVM's warnings that tell the user nothing."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Inside, nothing that TVM's C++ side writes to standard error is shown.

    It warns of every kernel with pooling that the annotation `meta_schedule.pool_max`, which it
    set itself, names no rule for a CPU. Goes when it does not; errors come as exceptions.
    """
    try:
        kept = os.dup(2)
    except OSError:  # no standard error to speak of
        yield
        return
    with Path(os.devnull).open("wb") as sink:
        os.dup2(sink.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
