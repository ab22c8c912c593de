"""Caches as a kernel finds them in a model, before each run of a measurement.

    weights, other inputs, results     in memory
    the first input                    written just before, by all threads, each its share in order

as the kernel before it does, which shares out lines of an image or rows of a matrix. A program
that has its threads read the same shares finds them in the caches of their own cores; one that
shares out channels fetches half of them from others.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tunebank import _tvm

BEFORE_RUN = "tunebank.before_run"
"""What `time_evaluator` is to call, by its name."""
_FLUSH = "cache_flush_cpu_non_first_arg"


class Caches:
    """Prepares the caches for the measurements of a process.

    Args:
        target: canonical JSON text of the TVM target.
        threads: that write.
    """

    def __init__(self, target: str, threads: int) -> None:
        import tvm

        self._flush = tvm.get_global_func(_FLUSH)
        self._write = _writer(target, threads)
        self._view: Any = None
        tvm.register_global_func(BEFORE_RUN, self._before_run, override=True)

    def expect(self, arguments: Sequence[Any]) -> None:
        """What the next measurement's arguments are; floats alone are written to."""
        first = _tvm.flat_view(arguments[0])
        is_float = str(first.dtype) == "float32" and first.shape[0] > 0
        self._view = first if is_float else None

    def _before_run(self, *arguments: Any) -> None:
        self._flush(*arguments)
        if self._view is not None:
            self._write(self._view)


def _writer(target: str, threads: int) -> Any:
    """A program that changes the signs of an array, each thread those of its share."""
    import tvm
    from tvm import ir, tirx
    from tvm.script.ir_builder import IRBuilder
    from tvm.tirx.script.builder import ir as T  # noqa: N812

    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("main")
        T.func_attr({"global_symbol": "main", "tirx.noalias": True})
        size = tirx.Var("size", "int64")
        array = T.arg("array", T.buffer((size,), "float32"))
        with T.parallel(0, threads) as share:
            start = tirx.floordiv(share * size, threads)
            stop = tirx.floordiv((share + 1) * size, threads)
            with T.serial(0, stop - start) as number:
                T.buffer_store(array, -array[start + number], [start + number])
    module = ir.IRModule({"main": builder.get()})
    return tirx.build(module, target=tvm.target.Target(json.loads(target)))["main"]
