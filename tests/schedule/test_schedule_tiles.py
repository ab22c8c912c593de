"""Tile factors fitted to another extent, for any factors and extents."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunebank.device import Device
from tunebank.schedule.registers import register_tiles, tile_efficiency
from tunebank.schedule.tiles import divisors, fit_nearest, fit_rescaled, nearest_divisor

Fit = Callable[..., tuple[int, ...]]

extents = st.integers(1, 4096) | st.sampled_from([1, 2, 7, 13, 97, 1009, 4096, 3600])
factors = st.lists(st.sampled_from([1, 1, 2, 3, 4, 7, 8, 14, 16, 64]), min_size=1, max_size=5)
limits = st.sampled_from([1, 2, 7, 16, 64, 1 << 20])
fits = pytest.mark.parametrize("fit", [fit_nearest, fit_rescaled])


def avx2() -> Device:
    return Device("{}", 1, "test", vector_lanes=8, vector_registers=16)


@fits
@given(factors=factors, extent=extents, limit=limits)
def test_factors_multiply_to_the_extent(
    fit: Fit, factors: list[int], extent: int, limit: int
) -> None:
    fitted = fit(factors, extent, innermost_limit=limit)
    assert math.prod(fitted) == extent
    assert len(fitted) == len(factors)
    assert all(factor >= 1 for factor in fitted)
    if len(fitted) > 1:
        assert fitted[-1] <= limit


@given(factors=factors, limit=limits)
def test_the_own_extent_keeps_all_factors(factors: list[int], limit: int) -> None:
    extent = math.prod(factors)
    if factors[-1] <= limit or len(factors) == 1:
        assert fit_nearest(factors, extent, innermost_limit=limit) == tuple(factors)
        assert fit_rescaled(factors, extent, innermost_limit=limit) == tuple(factors)


@given(factors=factors.filter(lambda f: len(f) > 1), times=st.integers(1, 50))
def test_inner_factors_that_divide_are_kept(factors: list[int], times: int) -> None:
    """The innermost first: what is outside of the first that does not divide may change."""
    extent = math.prod(factors[1:]) * times
    fitted = fit_nearest(factors, extent, innermost_limit=1 << 20)
    assert fitted == (times, *factors[1:])


@given(factors=factors.filter(lambda f: len(f) > 1), extent=extents)
def test_the_innermost_factor_is_kept_exactly_when_it_divides(
    factors: list[int], extent: int
) -> None:
    fitted = fit_nearest(factors, extent, innermost_limit=1 << 20)
    assert (fitted[-1] == factors[-1]) == (extent % factors[-1] == 0)


def test_a_prime_gets_a_legal_tiling() -> None:
    assert fit_nearest((4, 1, 2, 8), 1009, innermost_limit=64) == (1009, 1, 1, 1)
    assert fit_nearest((4, 1, 2, 7), 49, innermost_limit=64) == (7, 1, 1, 7)


def test_rescaled_factors_grow_alike() -> None:
    assert fit_rescaled((1, 4, 2, 8), 512, innermost_limit=64) == (1, 8, 4, 16)


@given(number=st.integers(1, 10**6))
def test_divisors(number: int) -> None:
    found = divisors(number)
    assert list(found) == sorted(set(found))
    assert all(number % divisor == 0 for divisor in found)
    assert {number // divisor for divisor in found} == set(found)
    if number <= 2000:
        assert len(found) == sum(number % one == 0 for one in range(1, number + 1))


@given(
    number=st.integers(1, 5000),
    wanted=st.floats(0.1, 6000),
    limit=st.none() | st.integers(0, 100),
)
def test_nearest_divisor(number: int, wanted: float, limit: int | None) -> None:
    chosen = nearest_divisor(number, wanted, limit=limit)
    allowed = [d for d in divisors(number) if limit is None or d <= max(limit, 1)]
    assert chosen in allowed
    distances = [abs(math.log(divisor / wanted)) for divisor in allowed]
    assert abs(math.log(chosen / wanted)) == min(distances)


def test_one_is_always_allowed() -> None:
    assert nearest_divisor(6, 6.0, limit=0) == 1
    assert nearest_divisor(1, 100.0) == 1


@given(st.lists(extents, min_size=1, max_size=5))
def test_register_tiles_fit_the_extents(loops: list[int]) -> None:
    tiles = register_tiles(loops, avx2())
    assert tiles
    for tile in tiles:
        assert len(tile) == len(loops)
        assert all(extent % factor == 0 for extent, factor in zip(loops, tile, strict=True))
    # Only the two loops around the vector are in the register tile.
    assert all(factor == 1 for tile in tiles for factor in tile[:-3])


@given(st.lists(extents, min_size=1, max_size=4))
def test_register_tiles_come_best_first(loops: list[int]) -> None:
    device = avx2()
    rates = [
        tile_efficiency(math.prod(tile[:-1]), tile[-1], device)
        for tile in register_tiles(loops, device)
    ]
    assert all(first >= second - 1e-3 for first, second in itertools.pairwise(rates))
    assert all(0 < rate <= 1 for rate in rates)


def test_a_tile_that_spills_is_worse_than_one_that_fits() -> None:
    device = avx2()
    assert tile_efficiency(6, 16, device) == 1.0
    assert tile_efficiency(8, 32, device) < tile_efficiency(6, 16, device)
    assert tile_efficiency(1, 8, device) < tile_efficiency(6, 16, device)
    assert register_tiles([1, 56, 48, 64], device)[0][-1] % 8 == 0
