"""The calls of kernels in a model's graph: `call_tir(kernel, (arguments, ...))`."""

from __future__ import annotations

from typing import Any

from tvm import ir, relax

_CALL_TIR = "relax.call_tir"


def is_kernel_call(expr: Any) -> bool:
    """Whether an expression calls a tensor program."""
    return isinstance(expr, ir.Call) and getattr(expr.op, "name", "") == _CALL_TIR


def called_name(call: ir.Call) -> str:
    """What the program that is called goes by in the graph."""
    return str(call.args[0].name_hint)


def kernel_calls(function: relax.Function) -> list[ir.Call]:
    """All such calls of a function, in the order of running."""
    found: list[ir.Call] = []

    def visit(expr: Any) -> None:
        if is_kernel_call(expr):
            found.append(expr)

    relax.analysis.post_order_visit(function, visit)
    return found
