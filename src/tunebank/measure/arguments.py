"""Arguments drawn for a tensor program on its own: legal, and telling.

    floats                      from -1 to 1
    8-bit integers              their whole range: quantised values
    integers used as an index   0 or 1, legal for most tables
    other integers              from -100 to 100: sums of products, before they are scaled

Whether a parameter is used as an index is read from the unscheduled program. The arrays are the
same in every process, since candidates and their reference run in different ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ml_dtypes  # noqa: F401  numpy knows bfloat16 by it
import numpy as np
from tvm import ir, tirx

from tunebank.kernel import block_sites

Array = np.ndarray[Any, Any]

_FIELDS = ("a", "b", "value", "condition", "true_value", "false_value")


def index_positions(func: tirx.PrimFunc) -> list[int]:
    """Positions of the parameters whose values index others."""
    used: set[Any] = set()
    for site in block_sites(func)[1:]:
        for index in _indices(site.block.body):
            used.update(load.source for load in _loads(index))
    return [position for position, param in enumerate(func.params) if param in used]


def random_argument(dtype: str, shape: tuple[int, ...], seed: int, *, is_index: bool) -> Array:
    """A random argument.

    Args:
        dtype: TVM's name of the data type.
        shape: its extents.
        seed: the same seed gives the same array.
        is_index: whether it is used as an index.
    """
    generator, type_ = np.random.default_rng(seed), np.dtype(dtype)
    if type_.kind == "b" or (type_.kind in "iu" and is_index):
        return generator.integers(0, 2, shape).astype(type_)
    if type_.kind in "iu":
        low, high = (-100, 100) if type_.itemsize > 1 else _range(type_)
        return generator.integers(max(low, int(np.iinfo(type_).min)), high + 1, shape).astype(type_)
    return (2.0 * generator.random(shape, np.float32) - 1.0).astype(type_, copy=False)


def _range(dtype: np.dtype[Any]) -> tuple[int, int]:
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)


def _indices(stmt: Any) -> Iterator[Any]:
    """The expressions in a block's body that say where to load from or store to."""
    if isinstance(stmt, tirx.BufferStore):
        yield from stmt.indices
        for load in _loads(stmt.value):
            yield from load.indices
    elif isinstance(stmt, tirx.SeqStmt):
        for part in stmt.seq:
            yield from _indices(part)
    elif isinstance(stmt, tirx.For):
        yield from _indices(stmt.body)
    elif isinstance(stmt, tirx.IfThenElse):
        for part in (stmt.then_case, stmt.else_case):
            yield from _indices(part)


def _loads(expr: Any) -> Iterator[Any]:
    """The loads in an expression, those in their indices too."""
    if isinstance(expr, ir.TensorLoad):
        yield expr
        inner = list(expr.indices)
    elif isinstance(expr, ir.Call):
        inner = list(expr.args)
    else:
        inner = [getattr(expr, name) for name in _FIELDS if hasattr(expr, name)]
    for part in inner:
        if isinstance(part, ir.Expr):
            yield from _loads(part)
