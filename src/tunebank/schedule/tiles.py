"""Tile factors fitted to another extent.

A tiling splits a loop of extent E into factors whose product is E, the outermost first. On a
CPU the innermost one is the vector or register tile, the next the cache tile, and the
outermost feeds the threads; so the inner factors are worth more than the outer ones.

    nearest    56 = (4, 1, 2, 7)  →  49:  (7, 1, 1, 7)    inner factors first, each the divisor
                                                          of what is left that is nearest
    rescaled   64 = (1, 4, 2, 8)  →  512: (1, 8, 4, 16)   every factor grows alike
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

Factors = tuple[int, ...]


@lru_cache(maxsize=4096)
def divisors(number: int) -> tuple[int, ...]:
    """All divisors of a positive number, ascending."""
    small = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return tuple(small + [number // d for d in reversed(small) if d * d != number])


@lru_cache(maxsize=65536)
def nearest_divisor(number: int, wanted: float, *, limit: int | None = None) -> int:
    """The divisor of `number` nearest to `wanted` by ratio; of two equally near the larger.

    Args:
        number: positive.
        wanted: positive.
        limit: largest divisor allowed; 1 always is.
    """
    allowed = [d for d in divisors(number) if limit is None or d <= max(limit, 1)]
    return min(allowed, key=lambda d: (abs(math.log(d / wanted)), -d))


def fit_nearest(factors: Sequence[int], extent: int, *, innermost_limit: int) -> Factors:
    """Factors of `extent` near to the given ones, the inner ones kept where they divide.

    Args:
        factors: a donor's factors, outermost first.
        extent: extent of the target's loop.
        innermost_limit: largest innermost factor allowed.

    Returns:
        as many factors, whose product is `extent`.
    """
    return _fit([float(factor) for factor in factors], extent, innermost_limit)


def fit_rescaled(factors: Sequence[int], extent: int, *, innermost_limit: int) -> Factors:
    """Factors of `extent` in the given ones' proportions; see `fit_nearest`."""
    total = math.prod(factors)
    scale = (extent / total) ** (1 / max(1, sum(factor > 1 for factor in factors)))
    wanted = [max(1.0, factor * scale) if factor > 1 else 1.0 for factor in factors]
    return _fit(wanted, extent, innermost_limit)


def _fit(wanted: Sequence[float], extent: int, innermost_limit: int) -> Factors:
    """Inner factors first; the outermost one takes what is left."""
    left = extent
    inner: list[int] = []
    for position, want in enumerate(reversed(wanted[1:])):
        limit = innermost_limit if position == 0 else None
        factor = nearest_divisor(left, max(want, 1.0), limit=limit)
        inner.append(factor)
        left //= factor
    return (left, *reversed(inner)) if len(wanted) > 1 else (extent,)


def uneven(extent: int, most: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """An extent shared out among as few tiles as `most` allows: (count, size) of two kinds.

    >>> uneven(197, 14)
    ((2, 14), (13, 13))
    """
    tiles = math.ceil(extent / most)
    size, larger = divmod(extent, tiles)
    return (larger, size + 1), (tiles - larger, size)
