"""Auto-scheduling from scratch, resumed from the bank; the measurer only pretends."""

from __future__ import annotations

import pytest

from programs import elementwise, kernel, matmul, model_of
from tunebank.bank import SqlBank
from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.measure.fake import FakeMeasurer, hashed_latency_us
from tunebank.search import TuneProgress, TuneSettings, tune

TRIALS = 6


def settings(trials: int = TRIALS, **changes: float) -> TuneSettings:
    return TuneSettings(source="tuned", trials_per_kernel=trials, **changes)


def trials_of(bank: SqlBank, kernel: Kernel) -> int:
    found = bank.find(kernel_key=kernel.key, status=None)
    return sum(record.origin == "tune" for record in found)


def test_every_kernel_has_its_trials(device: Device) -> None:
    bank, fake = SqlBank("sqlite://"), FakeMeasurer()
    kernels = (kernel(matmul(m=32, n=32, k=32)), kernel(elementwise()))
    reports: list[TuneProgress] = []
    count = tune(kernels, bank, device, fake, settings(), report=reports.append)
    records = bank.find(source="tuned", status=None)
    assert len(fake.measured) == len(records) == count + len(kernels)
    assert trials_of(bank, kernels[0]) == TRIALS
    assert 0 <= trials_of(bank, kernels[1]) <= TRIALS
    assert {record.origin for record in records} == {"default", "tune"}
    assert {record.trace for record in records} == {c.trace.text for c in fake.measured}
    assert reports[-1].new_trials == count
    assert reports[-1].trials == reports[-1].total_trials


def test_it_goes_on_where_it_stopped(device: Device) -> None:
    bank = SqlBank("sqlite://")
    model = model_of(kernel(matmul(m=32, n=32, k=32)))
    assert tune(model.kernels, bank, device, FakeMeasurer(), settings()) == TRIALS
    idle = FakeMeasurer()
    assert tune(model.kernels, bank, device, idle, settings()) == 0
    assert idle.batches == []
    more = FakeMeasurer()
    assert tune(model.kernels, bank, device, more, settings(TRIALS + 3)) == 3
    (target,) = model.kernels
    best = min(hashed_latency_us(c) for c in more.measured)
    assert bank.find(kernel_key=target.key, limit=1)[0].latency_us <= best
    # What is known is not measured again, and the measurer is told the best of it.
    assert trials_of(bank, target) == TRIALS + 3
    earlier = [
        record.latency_us
        for record in bank.find(kernel_key=target.key)
        if record.trace not in {c.trace.text for c in more.measured} and record.origin == "tune"
    ]
    assert more.best_us[0][target.key] == pytest.approx(min(earlier))  # a bank rounds samples


def test_another_source_starts_anew(device: Device) -> None:
    bank = SqlBank("sqlite://")
    model = model_of(kernel(matmul(m=32, n=32, k=32)))
    tune(model.kernels, bank, device, FakeMeasurer(), settings())
    other = TuneSettings(source="other", trials_per_kernel=2)
    assert tune(model.kernels, bank, device, FakeMeasurer(), other) == 2


def test_an_interrupted_run_keeps_what_it_measured(device: Device) -> None:
    bank, fake = SqlBank("sqlite://"), FakeMeasurer(interrupted_after=1)
    kernels = (kernel(matmul(m=32, n=32, k=32)), kernel(elementwise()))
    with pytest.raises(KeyboardInterrupt):
        tune(kernels, bank, device, fake, settings())
    done = len(bank.find(status=None))
    assert done == len(fake.measured) > 0
    again = FakeMeasurer()
    tune(kernels, bank, device, again, settings())
    measured_before = {c.trace.text for c in fake.measured if c.kernel.key == kernels[0].key}
    assert all(c.trace.text not in measured_before for c in again.measured)


def test_failures_are_trials_too(device: Device) -> None:
    bank = SqlBank("sqlite://")
    fake = FakeMeasurer(fails=lambda _: "crashed")
    assert tune([kernel(matmul())], bank, device, fake, settings()) == TRIALS
    assert bank.stats().records == {"crashed": TRIALS + 1}  # the default schedule too


def test_a_budget_ends_it(device: Device) -> None:
    bank = SqlBank("sqlite://")
    fake = FakeMeasurer(seconds_per_candidate=0.1)
    count = tune(
        [kernel(matmul(m=64, n=64, k=64))],
        bank,
        device,
        fake,
        settings(10_000, budget_seconds=1.0),
    )
    assert 1 <= count <= 64
