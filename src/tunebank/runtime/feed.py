"""Arrays drawn for a model's inputs: legal ones, the same for the same seed everywhere.

    kind      floats                                   integers below their limit
    normal    standard normal                          uniform
    uniform   from 0 to 1                              uniform
    sparse    one element in eight is not zero         the same places are not zero
    zero      all zero                                 all zero
    large     ±100, ±10 in half precision              the largest legal value

Impulses on a quiet background tell of a wrong place (a padding off by one, swapped channels) where
dense noise tells of a wrong sum. The largest index is the last row of a table. Half precision
overflows at 65504, and activations of a hundred leave no room for sums of squares.

Integers without a limit are 0 or 1, legal for masks and for most indices; 8-bit integers are
quantised values, and take their whole range.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Feed = dict[str, Array]

KINDS = ("normal", "uniform", "sparse", "zero", "large")
"""The distributions, those that tell most first."""

_SPARSE_SHARE = 0.125
_SPARSE_SCALE = 3.0
_LARGE, _LARGE_HALF = 100.0, 10.0
_HALF_TYPES = ("float16", "bfloat16")


class InputLike(Protocol):
    """What is known of an input, by the reader of a model as by an artifact's manifest."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def shape(self) -> Sequence[int | None]:
        """Its extents; None counts as 1."""

    @property
    def dtype(self) -> str:
        """Data type: numpy's name, or `bfloat16`."""

    @property
    def limit(self) -> int | None:
        """The exclusive upper bound of legal integers, if there is one."""


def random_feed(inputs: Sequence[InputLike], *, seed: int = 0, kind: str = "normal") -> Feed:
    """An array for each input.

    Args:
        inputs: the inputs.
        seed: the same seed gives the same arrays.
        kind: one of `KINDS`.

    Raises:
        ValueError: no such kind.
    """
    if kind not in KINDS:
        raise ValueError(f"no distribution {kind!r}; there are: {', '.join(KINDS)}")
    generator = np.random.default_rng([seed, KINDS.index(kind)])
    return {spec.name: _draw(spec, kind, generator) for spec in inputs}


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The data type of that name; numpy knows `bfloat16` and its like by `ml_dtypes` alone."""
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes  # noqa: F401  registers its types with numpy

        return np.dtype(name)


def _draw(spec: InputLike, kind: str, generator: np.random.Generator) -> Array:
    shape = tuple(1 if extent is None else extent for extent in spec.shape)
    dtype = numpy_dtype(spec.dtype)
    if dtype.kind in "iu":
        values = _integers(shape, dtype, spec.limit, kind, generator)
    elif dtype.kind == "b":
        values = _integers(shape, dtype, 2, kind, generator)
    else:
        values = _floats(shape, spec.dtype in _HALF_TYPES, kind, generator)
    # A scalar is drawn as a number: what comes back is an array of shape ().
    return np.asarray(values, dtype)


def _floats(
    shape: tuple[int, ...], is_half: bool, kind: str, generator: np.random.Generator
) -> Any:
    if kind == "normal":
        return generator.standard_normal(shape, np.float32)
    if kind == "uniform":
        return generator.random(shape, np.float32)
    if kind == "sparse":
        values = _SPARSE_SCALE * generator.standard_normal(shape, np.float32)
        return values * (generator.random(shape) < _SPARSE_SHARE)
    if kind == "zero":
        return np.zeros(shape, np.float32)
    size = _LARGE_HALF if is_half else _LARGE
    return generator.choice([-size, size], shape)


def _integers(
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    limit: int | None,
    kind: str,
    generator: np.random.Generator,
) -> Any:
    low, high = _legal_range(dtype, limit)
    if kind == "zero":
        return np.zeros(shape, dtype)
    if kind == "large":
        # An index has one extreme that tells, a quantised value two.
        return generator.choice([low, high - 1] if low < 0 else [high - 1], shape)
    values = generator.integers(low, high, shape)
    return values * (generator.random(shape) < _SPARSE_SHARE) if kind == "sparse" else values


def _legal_range(dtype: np.dtype[Any], limit: int | None) -> tuple[int, int]:
    """Least legal integer, and the first above the largest."""
    if dtype.kind == "b":
        return 0, 2
    info = np.iinfo(dtype)
    if limit is not None:
        return 0, max(1, min(limit, int(info.max)))
    return (int(info.min), int(info.max) + 1) if dtype.itemsize == 1 else (0, 2)
