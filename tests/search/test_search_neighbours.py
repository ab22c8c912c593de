"""Schedules beside one of our own programs."""

from __future__ import annotations

from tunebank.schedule.trace import Trace, one_step
from tunebank.search.neighbours import neighbours


def values(*given: int) -> list[tuple[int, ...]]:
    return [trace.instructions[0].attributes for trace in neighbours(one_step("Panels", *given))]


def test_one_parameter_is_another() -> None:
    found = values(6, 2)
    assert set(found) == {(7, 2), (5, 2), (12, 2), (3, 2), (6, 3), (6, 1), (6, 4)}
    assert len(found) == 7, "half of two is one less"


def test_none_falls_below_one() -> None:
    assert values(1) == [(2,)]


def test_without_parameters_there_is_none() -> None:
    assert values() == []
    assert neighbours(one_step("Sampled", 3)) == []
    assert neighbours(Trace.from_text("[[], []]")) == []
