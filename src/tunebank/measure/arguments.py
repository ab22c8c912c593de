"""Arguments drawn for a tensor program on its own: legal, and telling.

    floats                      from -1 to 1
    8-bit integers              their whole range: quantised values
    integers used as an index   0 or 1, legal for most tables
    other integers              from -100 to 100: sums of products, before they are scaled

Whether a parameter is used as an index is read from the unscheduled program. The arrays are the
same in every process, since candidates and their reference run in different ones.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes  # noqa: F401  numpy knows bfloat16 by it
import numpy as np
from tvm import tirx

from tunebank.kernel import block_sites
from tunebank.kernel.expressions import index_expressions, loads

Array = np.ndarray[Any, Any]


def index_positions(func: tirx.PrimFunc) -> list[int]:
    """Positions of the parameters whose values index others."""
    used: set[Any] = set()
    for site in block_sites(func)[1:]:
        for index in index_expressions(site.block.body):
            used.update(load.source for load in loads(index))
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
