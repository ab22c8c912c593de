"""Walks over the expressions of a tensor program's blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tvm import ir, tirx

IF_THEN_ELSE = "prim.if_then_else"
"""The operator that evaluates one of its branches alone."""

_FIELDS = ("a", "b", "value", "condition", "true_value", "false_value")


def index_expressions(stmt: Any) -> Iterator[Any]:
    """The expressions in a block's body that say where to load from or store to."""
    if isinstance(stmt, tirx.BufferStore):
        yield from stmt.indices
        for load in loads(stmt.value):
            yield from load.indices
    elif isinstance(stmt, tirx.SeqStmt):
        for part in stmt.seq:
            yield from index_expressions(part)
    elif isinstance(stmt, tirx.For):
        yield from index_expressions(stmt.body)
    elif isinstance(stmt, tirx.IfThenElse):
        for part in (stmt.then_case, stmt.else_case):
            yield from index_expressions(part)


def loads(expr: Any) -> Iterator[Any]:
    """The loads in an expression, those in their indices too."""
    return (one for one in expressions(expr) if isinstance(one, ir.TensorLoad))


def expressions(expr: Any) -> Iterator[Any]:
    """An expression and all that it consists of."""
    yield expr
    if isinstance(expr, ir.TensorLoad):
        inner = list(expr.indices)
    elif isinstance(expr, ir.Call):
        inner = list(expr.args)
    else:
        inner = [getattr(expr, name) for name in _FIELDS if hasattr(expr, name)]
    for part in inner:
        if isinstance(part, ir.Expr):
            yield from expressions(part)


def branches(expr: Any) -> tuple[Any, Any, Any] | None:
    """Of a choice between two values its condition and both; None if it is something else."""
    if isinstance(expr, tirx.Select):
        return expr.condition, expr.true_value, expr.false_value
    if isinstance(expr, ir.Call) and getattr(expr.op, "name", "") == IF_THEN_ELSE:
        condition, value, other = expr.args
        return condition, value, other
    return None
