"""Caches as a kernel finds them in a model, before each run of a measurement.

    weights, other inputs, results     in memory
    the first input                    written just before, by all threads, each its share in order

as the kernel before it does, which shares out lines of an image or rows of a matrix. A program
that has its threads read the same shares finds them in the caches of their own cores; one that
shares out channels fetches half of them from others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from tunebank import _tvm

BEFORE_RUN = "tunebank.before_run"
"""What `time_evaluator` is to call, by its name."""
_FLUSH = "cache_flush_cpu_non_first_arg"
"""TVM's own, which waits for each line: for CPUs that have no other way."""
_LINE_BYTES = 64


class Caches:
    """Prepares the caches for the measurements of a process.

    Args:
        target: canonical JSON text of the TVM target.
        threads: that write and flush.
    """

    def __init__(self, target: str, threads: int) -> None:
        import tvm
        from tvm.target import Target

        built_for = Target(json.loads(target))
        self._write = _program(_changed_signs, "float32", threads, built_for)
        self._flush = tvm.get_global_func(_FLUSH)
        self._flush_array = None
        if _tvm.can_flush_lines(built_for):
            self._flush_array = _program(_flushed, "uint8", threads, built_for)
        self._written: Any = None
        self._flushed: list[Any] = []
        tvm.register_global_func(BEFORE_RUN, self._before_run, override=True)

    def expect(self, arguments: Sequence[Any]) -> None:
        """What the next measurement's arguments are; floats alone are written to."""
        first, *others = arguments
        is_float = str(first.dtype) == "float32" and 0 not in first.shape
        self._written = _tvm.flat_view(first) if is_float else None
        self._flushed = [_tvm.flat_view(one, "uint8") for one in others if 0 not in one.shape]

    def _before_run(self, *arguments: Any) -> None:
        if self._flush_array is None:
            self._flush(*arguments)
        else:
            for one in self._flushed:
                self._flush_array(one)
        if self._written is not None:
            self._write(self._written)


def _changed_signs(array: Any, size: Any, share: Any, shares: int) -> None:
    """Changes the signs of a share of an array."""
    from tvm import tirx
    from tvm.tirx.script.builder import ir as T  # noqa: N812

    start = tirx.floordiv(share * size, shares)
    with T.serial(0, tirx.floordiv((share + 1) * size, shares) - start) as number:
        T.buffer_store(array, -array[start + number], [start + number])


def _flushed(array: Any, size: Any, share: Any, shares: int) -> None:
    """Flushes the cache lines of a share of an array of bytes."""
    from tvm import tirx
    from tvm.tirx.script.builder import ir as T  # noqa: N812

    lines = tirx.floordiv(size + _LINE_BYTES - 1, _LINE_BYTES)
    start = tirx.floordiv(share * lines, shares)
    with T.serial(0, tirx.floordiv((share + 1) * lines, shares) - start) as number:
        _tvm.flush_line(array[(start + number) * _LINE_BYTES])


def _program(body: Callable[..., None], dtype: str, threads: int, target: Any) -> Any:
    """A program that does something to an array of one dimension, each thread to its share."""
    from tvm import ir, tirx
    from tvm.script.ir_builder import IRBuilder
    from tvm.tirx.script.builder import ir as T  # noqa: N812

    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("main")
        T.func_attr({"global_symbol": "main", "tirx.noalias": True})
        size = tirx.Var("size", "int64")
        array = T.arg("array", T.buffer((size,), dtype))
        with T.parallel(0, threads) as share:
            body(array, size, share, threads)
    return tirx.build(ir.IRModule({"main": builder.get()}), target=target)["main"]
