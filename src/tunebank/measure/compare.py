"""Two arrays of results compared: how far apart they are, and whether rounding explains it.

One number can't tell. The largest difference, relative to the largest value, says nothing of a
channel whose values are a hundredth of the others'. So floating-point results are held to two
measures,

    largest    max |a - e| / max |e|                                             ≤  4 r
    spread     the largest |a - e|₂ / |e|₂, over the array and over its slices   ≤  2 r

where r is the relative error to expect by rounding (`rounding.py`). A slice is one index on one
axis: a channel, a row, a token, an image of a batch. A 2-norm averages, so that its bound needs
less room for chance than that of a single element; of a few elements it does not, and is left out.
The norm of a slice counts as no less than a quarter of what it is on average: where large terms
cancel, their errors stay, and in a slice of equal elements (a channel, if all tokens are the same)
nothing averages.

Integers and truth values are chosen by comparing floating-point numbers (ArgMax, TopK, a mask):
they are equal, but for as small a share as ties to within rounding explain. Quantised values
(8-bit integers) are numbers, a step of which is 1/255 of their range.

NaN where the reference has none is wrong whatever else is right. Where the reference is NaN,
anything is right. Where it is infinite, the same infinity is right, and in its place a value
beyond half of the largest number, since which of two orders of summation overflows is chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

LARGEST_FACTOR = 4.0
"""Room for conditioning. Networks of all kinds that are right use up to 0.5 of r, since compilers
sum in several short rows instead of one long one."""
SPREAD_FACTOR = 2.0
TIE_FACTOR = 4.0
"""Two of a few numbers of magnitude 1 tie to within r with a probability of some r."""
LEAST_ROUNDING = 1e-6
"""Errors of approximated functions, and of conditions such as a subtraction's that no count of
roundings knows: some 16 units of float32."""
LARGEST_ROUNDING = 0.025
"""What agrees to no better than `LARGEST_FACTOR` times this, 10 %, is not said to agree."""

_SLICE_FLOOR = 0.25
_MIN_SIZE = 16
"""Elements of an array or slice whose 2-norm counts."""
_QUANTISED_RANGE = 255.0


@dataclass(frozen=True)
class Difference:
    """How far results are from a reference's.

    Attributes:
        max_abs: largest absolute difference.
        largest: the same, relative to the largest magnitude of the reference.
        spread: largest relative difference in the 2-norm, over the array and over its slices.
        share: of integers and truth values, the share of elements that differ.
        flaw: what makes them wrong whatever the tolerance: "" for nothing.
        is_comparable: whether shapes and data types agree, and there is no NaN but the reference's.
    """

    max_abs: float = 0.0
    largest: float = 0.0
    spread: float = 0.0
    share: float = 0.0
    flaw: str = ""
    is_comparable: bool = True

    def excess(self, rounding: float) -> float:
        """How many times larger than rounding explains; up to 1 is agreement.

        Args:
            rounding: relative error to expect by rounding.
        """
        if self.flaw:
            return float("inf")
        bound = min(max(rounding, LEAST_ROUNDING), LARGEST_ROUNDING)
        return max(
            self.largest / (LARGEST_FACTOR * bound),
            self.spread / (SPREAD_FACTOR * bound),
            self.share / (TIE_FACTOR * bound),
        )


def difference(actual: Array, expected: Array, *, scale: float = 0.0) -> Difference:
    """Compares results with a reference's.

    Args:
        actual: the results.
        expected: the reference's, of the same shape and data type.
        scale: magnitude that counts as 1 if all of the reference's are smaller: an output of zeros
            has no scale of its own.
    """
    if actual.shape != expected.shape:
        return Difference(
            flaw=f"shape {actual.shape} instead of {expected.shape}", is_comparable=False
        )
    if actual.dtype != expected.dtype:
        return Difference(flaw=f"{actual.dtype} instead of {expected.dtype}", is_comparable=False)
    if expected.dtype.kind == "b" or (expected.dtype.kind in "iu" and expected.dtype.itemsize > 1):
        return _exact_difference(actual, expected)
    one, other = actual.astype(np.float64), expected.astype(np.float64)
    if expected.dtype.kind in "iu":
        scale = max(scale, _QUANTISED_RANGE)
    else:
        nan = np.isnan(one) & ~np.isnan(other)
        if nan.any():
            return Difference(flaw=_of("NaN", nan), is_comparable=False)
        flaw = _overflow(one, other, _largest_number(expected.dtype))
        if flaw:
            return Difference(flaw=flaw)
    finite = np.isfinite(other)
    error = np.subtract(one, other, out=np.zeros_like(one), where=finite)
    other = np.where(finite, other, 0.0)
    return _real_difference(np.abs(error), np.abs(other), scale)


def is_nowhere_finite(array: Array) -> bool:
    """Whether an array holds numbers, and each of them is NaN or infinite."""
    if array.dtype.kind in "iub" or not array.size:
        return False
    return not np.isfinite(array.astype(np.float64)).any()


def magnitude(array: Array) -> float:
    """The largest finite magnitude in an array."""
    values = np.abs(array.astype(np.float64))
    return float(values[np.isfinite(values)].max(initial=0.0))


def _exact_difference(actual: Array, expected: Array) -> Difference:
    differing = actual != expected
    if not differing.any():
        return Difference()
    gap = np.abs(actual.astype(np.float64) - expected.astype(np.float64)).max()
    return Difference(max_abs=float(gap), share=float(differing.mean()))


def _overflow(actual: Array, expected: Array, largest_number: float) -> str:
    infinite = np.isinf(actual) & np.isfinite(expected)
    if infinite.any():
        return _of("infinite", infinite)
    small = np.isinf(expected) & ~(actual * np.sign(expected) > largest_number / 2)
    return _of("finite where the reference is infinite", small) if small.any() else ""


def _of(flaw: str, where: Array) -> str:
    return f"{flaw} in {int(where.sum())} of {where.size} elements"


def _largest_number(dtype: np.dtype[Any]) -> float:
    if dtype.kind == "f":
        return float(np.finfo(dtype).max)
    import ml_dtypes

    describe: Any = ml_dtypes.finfo
    return float(describe(dtype).max)


def _real_difference(error: Array, values: Array, scale: float) -> Difference:
    """Of absolute errors and absolute values, where both are finite."""
    max_abs = float(error.max(initial=0.0))
    if max_abs == 0.0:
        return Difference()
    own = float(values.max(initial=0.0))
    unit = max(own, scale)
    if unit == 0.0:
        return Difference(max_abs, float("inf"), float("inf"))
    # Squares of tiny numbers would vanish, of huge ones overflow.
    error, values = error / unit, values / unit
    return Difference(max_abs, max_abs / unit, _spread(error**2, values**2, own / unit))


def _spread(error: Array, values: Array, own: float) -> float:
    """Largest relative 2-norm, from squared errors and squared values.

    Args:
        error: squared errors.
        values: squared values.
        own: the largest value before it was squared; where it is below 1 the scale was given, and
            the array counts as if its largest value were that.
    """
    total = float(values.sum())
    if own < 1.0:
        total = float(values.size) if own == 0.0 else total / own**2
    mean = total / values.size
    found = float(error.sum()) / total if values.size >= _MIN_SIZE else 0.0
    for axis, extent in enumerate(error.shape):
        size = error.size // extent
        if extent == 1 or size < _MIN_SIZE:
            continue
        others = tuple(i for i in range(error.ndim) if i != axis)
        least = _SLICE_FLOOR**2 * mean * size
        found = max(found, float((error.sum(others) / np.maximum(values.sum(others), least)).max()))
    return float(np.sqrt(found))
