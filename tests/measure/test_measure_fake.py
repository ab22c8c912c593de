"""The measurer that tests of the search use."""

from __future__ import annotations

import time

import pytest

from programs import kernel, matmul
from tunebank.device import Device
from tunebank.measure import Measurer
from tunebank.measure.fake import FakeMeasurer, hashed_latency_us
from tunebank.schedule import Scheduled, Space


@pytest.fixture(scope="module")
def candidates(device: Device) -> list[Scheduled]:
    space = Space(kernel(matmul()), device)
    return [space.apply(sketch) for sketch in space.sketches]


def test_latencies_follow_from_the_schedule(candidates: list[Scheduled]) -> None:
    fake: Measurer = FakeMeasurer()
    first, again = (fake.measure(candidates, best_us={}) for _ in range(2))
    assert first == again
    assert [result.latency_us for result in first] == list(map(hashed_latency_us, candidates))
    assert len({result.latency_us for result in first}) == len(candidates)
    assert all(result.checked for result in first)


def test_it_fails_as_told_and_remembers(candidates: list[Scheduled]) -> None:
    bad = candidates[0].trace.text
    fake = FakeMeasurer(lambda _: 5.0, fails=lambda c: "wrong" if c.trace.text == bad else None)
    results = fake.measure(candidates, best_us={"k": 3.0})
    assert [r.status for r in results] == ["wrong"] + ["ok"] * (len(candidates) - 1)
    assert results[0].latency_us is None
    assert results[1].latency_us == 5.0
    assert fake.measured == candidates
    assert fake.best_us == [{"k": 3.0}]


def test_time_passes_if_it_should(candidates: list[Scheduled]) -> None:
    start = time.monotonic()
    FakeMeasurer(seconds_per_candidate=0.05).measure(candidates[:2], best_us={})
    assert time.monotonic() - start >= 0.1


def test_nothing_is_measured_after_close() -> None:
    fake = FakeMeasurer()
    fake.close()
    with pytest.raises(RuntimeError):
        fake.measure([], best_us={})
