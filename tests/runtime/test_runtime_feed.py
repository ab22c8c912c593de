"""Drawn inputs: legal, repeatable, and as different from each other as they say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunebank.model import TensorSpec
from tunebank.runtime import Tensor
from tunebank.runtime.feed import KINDS, numpy_dtype, random_feed

FLOATS = ("float16", "bfloat16", "float32", "float64")
INTEGERS = ("int8", "uint8", "int16", "int32", "int64", "uint16", "uint32", "uint64")


@given(
    kind=st.sampled_from(KINDS),
    dtype=st.sampled_from((*FLOATS, *INTEGERS, "bool")),
    shape=st.lists(st.integers(0, 5), max_size=4),
    limit=st.none() | st.integers(1, 2**40),
    seed=st.integers(0, 3),
)
def test_arrays_are_as_declared(
    kind: str, dtype: str, shape: list[int], limit: int | None, seed: int
) -> None:
    spec = TensorSpec("x", tuple(shape), dtype, limit)
    array = random_feed([spec], seed=seed, kind=kind)["x"]
    assert isinstance(array, np.ndarray)
    assert array.shape == tuple(shape)
    assert array.dtype == numpy_dtype(dtype)
    if dtype in INTEGERS and limit is not None and array.size:
        assert 0 <= int(array.min()) <= int(array.max()) < limit
    if dtype in FLOATS:
        assert np.isfinite(array.astype(np.float64)).all()
    again = random_feed([spec], seed=seed, kind=kind)["x"]
    np.testing.assert_array_equal(array, again)


def test_indices_reach_their_limit() -> None:
    ids = TensorSpec("ids", (2000,), "int64", limit=100)
    drawn = random_feed([ids])["ids"]
    assert set(drawn) == set(range(100))
    assert set(random_feed([ids], kind="large")["ids"]) == {99}
    assert set(random_feed([ids], kind="zero")["ids"]) == {0}
    assert np.mean(random_feed([ids], kind="sparse")["ids"] == 0) > 0.8


def test_integers_without_limit_are_0_or_1_and_bytes_take_their_range() -> None:
    mask = random_feed([TensorSpec("mask", (500,), "int32")])["mask"]
    assert set(mask) == {0, 1}
    for dtype, low, high in (("int8", -128, 127), ("uint8", 0, 255)):
        values = random_feed([TensorSpec("q", (20_000,), dtype)])["q"]
        assert (values.min(), values.max()) == (low, high)
    extremes = random_feed([TensorSpec("q", (100,), "int8")], kind="large")["q"]
    assert set(extremes) == {-128, 127}


def test_distributions_differ() -> None:
    spec = TensorSpec("x", (10_000,), "float32")
    drawn = {kind: random_feed([spec], kind=kind)["x"] for kind in KINDS}
    assert abs(drawn["normal"].mean()) < 0.1 and 0.9 < drawn["normal"].std() < 1.1
    assert drawn["uniform"].min() >= 0
    assert 0.05 < np.mean(drawn["sparse"] != 0) < 0.25
    assert not drawn["zero"].any()
    assert set(drawn["large"]) == {-100.0, 100.0}
    half = random_feed([TensorSpec("x", (100,), "float16")], kind="large")["x"]
    assert set(half.astype(float)) == {-10.0, 10.0}


def test_inputs_are_independent_and_seeds_count() -> None:
    specs = [TensorSpec(name, (50,), "float32") for name in "ab"]
    feed = random_feed(specs)
    assert not np.array_equal(feed["a"], feed["b"])
    assert not np.array_equal(feed["a"], random_feed(specs, seed=1)["a"])


def test_open_extents_count_as_one() -> None:
    tensor = Tensor(name="x", shape=(None, 3), dtype="float32")
    assert random_feed([tensor])["x"].shape == (1, 3)


def test_unknown_kind() -> None:
    with pytest.raises(ValueError, match="no distribution 'gamma'; there are: normal"):
        random_feed([], kind="gamma")
