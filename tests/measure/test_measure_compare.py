"""Two measures of how far results are apart, and what is wrong whatever they say."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from tunebank.measure.compare import (
    LARGEST_FACTOR,
    SPREAD_FACTOR,
    Array,
    difference,
    is_nowhere_finite,
)

ROUNDING = 1e-5


def _values(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_equal_is_no_difference() -> None:
    found = difference(_values(3, 4), _values(3, 4))
    assert found.excess(0.0) == 0.0


def test_largest_is_relative_to_the_largest_value() -> None:
    expected = np.array([1.0, -200.0, 3.0])
    actual = expected + np.array([0.5, 0.0, 0.0])
    found = difference(actual, expected)
    assert found.max_abs == 0.5
    assert found.largest == pytest.approx(0.5 / 200)
    assert found.excess(ROUNDING) >= 0.5 / 200 / (LARGEST_FACTOR * ROUNDING) > 1.0
    # No rounding, however much of it, explains a tenth of the largest value.
    assert difference(1.2 * expected, expected).excess(1.0) > 1.0


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_a_quiet_slice_is_not_hidden_by_loud_ones(axis: int) -> None:
    expected = 100.0 * _values(5, 6, 7, 8)
    index: list[object] = [slice(None)] * 4
    index[axis] = 2
    expected[tuple(index)] /= 10.0
    actual = expected.copy()
    actual[tuple(index)] *= 1.0001
    found = difference(actual, expected)
    assert found.largest < LARGEST_FACTOR * ROUNDING, "the largest difference alone would pass it"
    # A slice of a tenth counts as one of a quarter.
    assert found.spread == pytest.approx(1e-4 * 0.1 / 0.25, rel=0.1)
    assert found.excess(ROUNDING) > 1.0


def test_a_few_elements_have_no_norm_of_their_own() -> None:
    expected = np.array([1.0, -0.4])
    few = difference(expected + 3 * ROUNDING, expected)
    assert few.spread == 0.0
    assert few.excess(ROUNDING) == pytest.approx(3 / LARGEST_FACTOR)
    many = difference(np.tile(expected + 3 * ROUNDING, 8), np.tile(expected, 8))
    assert many.largest == few.largest
    assert many.excess(ROUNDING) > 1.0


def test_rounding_errors_of_large_terms_that_cancel_are_no_fault() -> None:
    # A channel that is zero up to cancellation: its error is relative to its terms.
    expected = _values(1, 8, 10, 10)
    expected[:, 3] *= 1e-7
    actual = expected.copy()
    actual[:, 3] += 1e-7 * _values(10, 10)
    found = difference(actual, expected)
    assert 0 < found.spread < SPREAD_FACTOR * ROUNDING


def test_zeros_take_their_scale_from_elsewhere() -> None:
    zeros, noise = np.zeros(40, np.float32), np.full(40, 1e-9, np.float32)
    assert difference(noise, zeros).excess(ROUNDING) == float("inf")
    assert difference(noise, zeros, scale=1e-3).excess(ROUNDING) < 1.0
    assert difference(np.full(40, 1e-6, np.float32), zeros, scale=1e-3).excess(ROUNDING) > 1.0
    assert difference(zeros, zeros).excess(ROUNDING) == 0.0


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_extreme_scales_neither_vanish_nor_overflow(size: float) -> None:
    expected = (size * _values(20, 20)).astype(np.float32)
    found = difference((expected * 1.001).astype(np.float32), expected)
    assert found.spread == pytest.approx(1e-3, rel=0.01)


def test_not_a_number() -> None:
    expected = _values(20)
    expected[3] = np.nan
    actual = expected.copy()
    assert difference(actual, expected).excess(ROUNDING) == 0.0
    actual[3] = 7.0  # where the reference says nothing, anything is right
    assert difference(actual, expected).excess(ROUNDING) == 0.0
    actual[4] = np.nan
    found = difference(actual, expected)
    assert found.flaw == "NaN in 1 of 20 elements"
    assert not found.is_comparable
    assert found.excess(1.0) == float("inf")
    assert is_nowhere_finite(np.full(3, np.nan))
    assert not is_nowhere_finite(expected)
    assert not is_nowhere_finite(np.zeros(0, np.float32))


@pytest.mark.parametrize(
    ("value", "flaw"),
    [(np.inf, ""), (60000.0, ""), (-np.inf, "finite where"), (10.0, "finite where")],
)
def test_overflow_of_the_reference(value: float, flaw: str) -> None:
    expected = np.array([1.0, np.inf], np.float16)
    assert difference(np.array([1.0, value], np.float16), expected).flaw.startswith(flaw)
    assert bool(flaw) == bool(difference(np.array([1.0, value], np.float16), expected).flaw)


def test_overflow_of_the_results_alone() -> None:
    found = difference(np.array([1.0, np.inf], np.float16), np.array([1.0, 60000.0], np.float16))
    assert found.flaw == "infinite in 1 of 2 elements"
    assert found.is_comparable, "second opinions may overflow there too"


def test_indices_are_equal_but_for_ties() -> None:
    expected = np.arange(100_000)
    actual = expected.copy()
    actual[0] = 5
    assert difference(actual, expected).excess(ROUNDING) < 1.0
    actual[:100] = 5
    assert difference(actual, expected).excess(ROUNDING) > 1.0
    assert difference(np.array([3]), np.array([4])).excess(1.0) > 1.0
    assert difference(np.array([True, False]), np.array([True, True])).share == 0.5


def test_quantised_values_are_numbers() -> None:
    expected = np.array([0, 100, 255], np.uint8)
    found = difference(expected - np.array([0, 1, 0], np.uint8), expected)
    assert found.largest == pytest.approx(1 / 255)
    assert found.share == 0.0


def test_bfloat16() -> None:
    expected = _values(100).astype(ml_dtypes.bfloat16)
    assert difference(expected, expected).excess(0.0) == 0.0
    doubled = (2 * expected.astype(np.float32)).astype(ml_dtypes.bfloat16)
    assert difference(doubled, expected).largest == pytest.approx(1.0)


def test_other_shape_or_type() -> None:
    assert "shape (2,) instead of (3,)" in difference(np.ones(2), np.ones(3)).flaw
    assert "float64" in difference(np.ones(2), np.ones(2, np.float32)).flaw
