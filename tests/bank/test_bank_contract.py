"""The contract of `Bank`, for every kind of bank."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
from bank_records import make_failure, make_record

from tunebank.bank import Bank, Record
from tunebank.errors import BankError, UsageError


def ids(records: list[Record]) -> list[str]:
    return [record.id for record in records]


def test_what_is_deposited_comes_back(bank: Bank) -> None:
    record = make_record(donor_id="other", error=None, samples_us=(10.0, 11.5, 9.25))
    assert bank.deposit([record]) == 1
    assert bank.find() == [record]
    assert bank.get(record.id) == record


def test_a_record_is_deposited_once(bank: Bank) -> None:
    first, second = make_record(1), make_record(2)
    assert bank.deposit([first, first]) == 1
    assert bank.deposit([first, second]) == 1
    assert bank.deposit([]) == 0
    assert len(bank.find()) == 2


def test_the_first_measurement_stays(bank: Bank) -> None:
    first = make_record(1, latency_us=5.0)
    again = make_record(1, latency_us=4.0)
    assert first.id == again.id
    bank.deposit([first])
    assert bank.deposit([again]) == 0
    assert bank.find() == [first]


def test_fastest_first_failures_last(bank: Bank) -> None:
    failure, slow, fast = make_failure(1), make_record(9), make_record(2)
    bank.deposit([failure, slow, fast])
    assert ids(bank.find(status=None)) == ids([fast, slow, failure])
    assert ids(bank.find(status=None, limit=1)) == [fast.id]
    assert ids(bank.find()) == ids([fast, slow])
    assert ids(bank.find(status="build_failed")) == [failure.id]


@pytest.mark.parametrize("field", ["kernel_key", "class_key", "anchor_key", "source"])
def test_find_by(bank: Bank, field: str) -> None:
    here = make_record(1, **{"kernel_key": "one", field: "wanted"})
    there = make_record(2, **{"kernel_key": "other", field: "unwanted"})
    bank.deposit([here, there])
    conditions: dict[str, Any] = {field: "wanted"}
    assert bank.find(**conditions) == [here]


def test_excluded_sources_are_hidden(bank: Bank) -> None:
    bank.deposit([make_record(1, source="a"), make_record(2, source="b")])
    assert [r.source for r in bank.find(exclude_sources=["a"])] == ["b"]
    assert bank.find(exclude_sources=["a", "b"]) == []


def test_a_failed_deposit_leaves_nothing(bank: Bank) -> None:
    def broken() -> Iterator[Record]:
        yield make_record(1)
        raise RuntimeError("the caller's own")

    with pytest.raises(RuntimeError):
        bank.deposit(broken())
    assert bank.find() == []


def test_get_takes_the_start_of_an_id(bank: Bank) -> None:
    bank.deposit([make_record(n) for n in range(40)])
    record = make_record(7)
    assert bank.get(record.id[:20]) == record
    assert bank.get("") is None, "several match"
    assert bank.get("%") is None, "not a pattern"


def test_prune_keeps_the_fastest_of_each_kernel_and_device(bank: Bank) -> None:
    bank.deposit([make_record(n, device=device) for n in range(5) for device in ("a", "b")])
    bank.deposit([make_failure(7, kernel_key="lonely")])
    assert bank.prune(keep=2) == 6
    assert [r.latency_us for r in bank.find()] == [10.0, 10.0, 11.0, 11.0]
    assert bank.stats().kernels == 2


def test_prune_keeps_what_gave_wrong_numbers(bank: Bank) -> None:
    bank.deposit(
        [*(make_record(n) for n in range(3)), make_failure(7), make_failure(8, status="wrong")]
    )
    assert bank.prune(keep=1) == 3
    assert [record.status for record in bank.find(status=None)] == ["ok", "wrong"]


def test_stats(bank: Bank) -> None:
    bank.deposit([make_record(1), make_failure(2), make_record(3, kernel_key="b", source="vgg")])
    stats = bank.stats()
    assert (stats.kernels, stats.classes) == (2, 1)
    assert stats.records == {"ok": 2, "build_failed": 1}
    assert stats.sources == {"resnet18": 2, "vgg": 1}
    assert stats.devices == {"cpu-a": 3}


def test_many_records(bank: Bank) -> None:
    records = [make_record(n) for n in range(1200)]
    assert bank.deposit(records) == 1200
    assert bank.deposit(records) == 0


@pytest.mark.parametrize("latency", [0.0, -1.0, math.nan, math.inf, None])
def test_a_record_needs_a_latency_that_fits(latency: float | None) -> None:
    with pytest.raises(ValueError, match="latency"):
        make_record(latency_us=latency)


def test_rate() -> None:
    assert make_record(flops=2e6, latency_us=10.0).gflops == pytest.approx(200.0)
    assert make_failure().gflops is None


def test_best_of_each_kernel_and_device(bank: Bank) -> None:
    bank.deposit([make_record(n, device=device) for n in range(5) for device in ("a", "b")])
    bank.deposit([make_record(9, kernel_key="other"), make_failure(7), make_failure(8, device="c")])
    best = bank.find(best_per_kernel=2)
    assert [(r.kernel_key, r.device, r.latency_us) for r in sorted(best, key=place)] == [
        ("kernel-a", "a", 10.0),
        ("kernel-a", "a", 11.0),
        ("kernel-a", "b", 10.0),
        ("kernel-a", "b", 11.0),
        ("other", "cpu-a", 19.0),
    ]
    assert [r.latency_us for r in best] == [10.0, 10.0, 11.0, 11.0, 19.0], "fastest first"
    assert bank.find(best_per_kernel=2, status=None) == best, "failures are left out"
    assert bank.find(best_per_kernel=2, limit=1) == best[:1]


def place(record: Record) -> tuple[str, str, float | None]:
    return record.kernel_key, record.device, record.latency_us


def test_the_best_are_chosen_among_those_that_meet_the_conditions(bank: Bank) -> None:
    hidden = [make_record(n, source="hidden") for n in range(3)]
    shown = [make_record(n, source="shown") for n in range(3, 6)]
    bank.deposit([*hidden, *shown])
    for conditions in ({"exclude_sources": ["hidden"]}, {"source": "shown"}):
        assert bank.find(best_per_kernel=2, **conditions) == shown[:2]  # type: ignore[arg-type]
    assert bank.find(best_per_kernel=1, class_key="class-a") == hidden[:1]
    assert bank.find(best_per_kernel=1, class_key="another") == []


@pytest.mark.parametrize("number", [0, -1])
def test_nothing_is_dropped_by_a_senseless_number(bank: Bank, number: int) -> None:
    bank.deposit([make_record(1)])
    with pytest.raises(UsageError, match=f"keep={number}"):
        bank.prune(keep=number)
    with pytest.raises(UsageError, match=f"best_per_kernel={number}"):
        bank.find(best_per_kernel=number)
    assert bank.find() == [make_record(1)]


def test_sources(bank: Bank) -> None:
    assert bank.sources() == []
    bank.deposit([make_record(1, source="vgg"), make_record(2, source="alexnet")])
    bank.deposit([make_failure(3, source="vgg"), make_failure(4, source="bert")])
    assert bank.sources() == ["alexnet", "bert", "vgg"]


def test_text_that_is_no_text_is_refused_whole(bank: Bank) -> None:
    with pytest.raises(BankError):
        bank.deposit([make_record(1), make_record(2, kernel_key="b", kernel_ir="\ud800")])
    assert bank.find() == []
