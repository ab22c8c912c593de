"""Interleaved timing, on contestants whose latencies are known."""

from __future__ import annotations

import time

import pytest

from tunebank.runtime.bench import LatencySamples, bench, measure_latency, ratio


def test_medians_and_ratio_of_known_latencies() -> None:
    samples = bench(
        {"fast": lambda: time.sleep(0.004), "slow": lambda: time.sleep(0.012)},
        rounds=4,
        min_seconds=0.2,
        pause_seconds=0.0,
    )
    assert 4 <= samples["fast"].median_ms < 8
    assert samples["fast"].median_ms <= samples["fast"].p90_ms
    found = ratio(samples["slow"], samples["fast"])
    assert 1.8 < found.median < 3.2
    assert found.low <= found.median <= found.high


def test_each_round_has_each_contestant_once_and_in_varying_order() -> None:
    calls: list[str] = []
    runs = {name: (lambda name=name: calls.append(name)) for name in "abc"}
    bench(runs, rounds=12, min_seconds=0.0, pause_seconds=0.0)
    warm_up, per_block = 2 * len(runs), 4
    turns = calls[warm_up::per_block]
    rounds = [tuple(turns[i : i + 3]) for i in range(0, len(turns), 3)]
    assert len(rounds) == 12
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert len(set(rounds)) > 1


def test_first_run_of_a_block_is_not_counted() -> None:
    calls = 0

    def slow_at_first() -> None:
        nonlocal calls
        calls += 1
        time.sleep(0.2 if calls == 1 else 0.001)

    assert max(measure_latency(slow_at_first, min_seconds=0.0).samples_ms) < 150


def test_ratio_is_taken_within_rounds() -> None:
    # The machine slows tenfold between the rounds; the ratio is two in either.
    slow = LatencySamples(((2.0, 2.0), (20.0, 20.0)))
    fast = LatencySamples(((1.0, 1.0), (10.0, 10.0)))
    found = ratio(slow, fast)
    assert (found.low, found.median, found.high) == (2.0, 2.0, 2.0)


def test_nothing_to_compare() -> None:
    with pytest.raises(ValueError, match="contestant"):
        bench({})
