"""Start-up of TVM: threads set explicitly, slow imports avoided."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import os
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tunebank._tvm.memory import keep_small_buffers_on_stack
from tunebank._tvm.threads import SPIN_COUNT, configure_pool

TVM_VERSION = "0.27.0.post1"
# 0.1.15.post1 and post2 crash in `TuneContext(...)`; goes when a fixed pair is out.
TVM_FFI_VERSION = "0.1.14.post1"

_INTRINSICS = "tvm.s_tir.tensor_intrin"


def tvm_imported() -> bool:
    """Whether TVM has been imported in this process."""
    return "tvm" in sys.modules


def prepare(*, threads: int | None = None) -> None:
    """Makes TVM ready to use in this process.

    Args:
        threads: size of the calling thread's pool; None leaves it as it is.
    """
    if threads is not None:
        os.environ["TVM_NUM_THREADS"] = str(threads)
        os.environ.setdefault("TVM_THREAD_POOL_SPIN_COUNT", str(SPIN_COUNT))
    _import_tvm()
    if threads is not None:
        configure_pool(threads)


@functools.cache
def _import_tvm() -> None:
    _seed_intrinsics()
    import tvm  # noqa: F401

    with _stack_without_source():
        importlib.import_module(f"{_INTRINSICS}.x86")
    keep_small_buffers_on_stack()


def _seed_intrinsics() -> None:
    """Puts an empty package in the place of `tvm.s_tir.tensor_intrin`.

    `TuneContext` and MetaSchedule's builder import that package, which parses the CUDA, ROCm
    and Hexagon intrinsics: 10 to 15 s of CPU in every fresh process. The stub has the real
    folder as its path, so that the sub-modules that are needed still import. Goes when TVM
    imports the intrinsics by target.
    """
    if _INTRINSICS in sys.modules:
        return
    spec = importlib.util.find_spec("tvm")
    if spec is None or spec.origin is None:
        return  # the import that follows says what is missing
    stub = types.ModuleType(_INTRINSICS)
    stub.__path__ = [str(Path(spec.origin).parent / "s_tir" / "tensor_intrin")]
    sys.modules[_INTRINSICS] = stub


@contextmanager
def _stack_without_source() -> Iterator[None]:
    """`inspect.stack` without source lines inside the block.

    TVMScript's decorators call it once per function and read the source file of every frame.
    Goes with the stub above.
    """
    original = inspect.stack
    inspect.stack = functools.partial(original, 0)
    try:
        yield
    finally:
        inspect.stack = original
