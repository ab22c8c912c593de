"""Small buffers on the stack, values asked for ahead, cache lines flushed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

_LEAVE = "disable_lower_builtin"
"""TVM's word for a buffer that `LowerTVMBuiltin` is not to take from the workspace."""
_MOST_BYTES = 8192
_MOST_BYTES_IN_ALL = 256 * 1024
_READ, _KEEP, _DATA = 0, 3, 1  # LLVM's words for what is fetched, and into which cache: all


def keep_small_buffers_on_stack() -> None:
    """Has TVM allocate small buffers on the stack, in everything that is built from now on.

    In a parallel loop TVM takes each buffer from its workspace, by a call: softmax of 1536 rows of
    128 columns took 369 us, of which 300 were for that. And LLVM keeps the values of such a buffer
    in registers only while nothing else in a loop may look at memory, as a prefetch may; an array
    on the stack that is indexed by constants becomes registers in any case. `LowerTVMBuiltin` means
    to leave buffers below 1 KB alone, and does not. This can go when it does, up to some more.
    """
    from tvm import tirx
    from tvm.ir.transform import Sequential

    original = tirx.compilation_pipeline.PIPELINE_MAP["s_tir"]

    def pipeline() -> tuple[Any, Callable[[], Any], Any]:
        passes, finish_host, finish_device = original()
        mark = tirx.transform.prim_func_pass(lambda func, *_: _marked(func), opt_level=0)
        return passes, lambda: Sequential([mark, finish_host()]), finish_device

    tirx.register_tir_pipeline("s_tir", pipeline)


def prefetch(value: Any) -> None:
    """Asks for the cache line of a value that will be read; it may lie beyond the buffer's end."""
    from tvm import tirx
    from tvm.tirx.script.builder import ir as T  # noqa: N812

    how = [tirx.IntImm("int32", number) for number in (_READ, _KEEP, _DATA)]
    T.evaluate(tirx.call_llvm_intrin("void", "llvm.prefetch", tirx.address_of(value), *how))


def can_flush_lines(target: Any) -> bool:
    """Whether programs for a target may flush a cache line without waiting for the one before."""
    import tvm

    return bool(tvm.get_global_func("target.target_has_feature")("clflushopt", target))


def flush_line(value: Any) -> None:
    """Writes the cache line of a value back to memory, and takes it out of all caches.

    TVM's own way, a function of its runtime, does one line after another and waits for each: 20 ms
    for 9 MB, which two threads do in 0.2 ms so (an Emerald Rapids).
    """
    from tvm import tirx
    from tvm.tirx.script.builder import ir as T  # noqa: N812

    T.evaluate(tirx.call_llvm_intrin("void", "llvm.x86.clflushopt", tirx.address_of(value)))


def _marked(func: Any) -> Any:
    """The program, its small buffers marked so that they are not taken from the workspace."""
    from tvm import tirx

    left, yes = _MOST_BYTES_IN_ALL, tirx.IntImm("int32", 1)

    def changed(node: Any) -> Any:
        nonlocal left
        if isinstance(node, tirx.SeqStmt):
            return tirx.SeqStmt([changed(one) for one in node.seq])
        if isinstance(node, tirx.For):
            return tirx.For(
                node.loop_var, node.min, node.extent, node.kind, changed(node.body),
                node.thread_binding, node.annotations, node.step,
            )  # fmt: skip
        if isinstance(node, tirx.IfThenElse):
            other = None if node.else_case is None else changed(node.else_case)
            return tirx.IfThenElse(node.condition, changed(node.then_case), other)
        if isinstance(node, tirx.AttrStmt):
            return tirx.AttrStmt(node.node, node.attr_key, node.value, changed(node.body))
        if isinstance(node, tirx.While):
            return tirx.While(node.condition, changed(node.body))
        size = _bytes(node.buffer) if isinstance(node, tirx.AllocBuffer) else None
        if size is None or size > min(left, _MOST_BYTES):
            return node
        left -= size
        return tirx.AllocBuffer(node.buffer, {**node.annotations, _LEAVE: yes})

    return func.with_body(changed(func.body))


def _bytes(buffer: Any) -> int | None:
    """How much a buffer takes; None if that is known only when it runs."""
    from tvm import tirx

    if not all(isinstance(extent, tirx.IntImm) for extent in buffer.shape):
        return None
    dtype = buffer.dtype
    elements = math.prod(int(extent) for extent in buffer.shape)
    return int(elements * dtype.bits * dtype.lanes // 8)
