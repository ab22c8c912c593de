"""Winograd's schedules in a bank: measured by tuning, trusted by reuse; the measurer pretends."""

from __future__ import annotations

from typing import Any

import pytest

from programs import conv2d, kernel, model_of
from tunebank.bank import SqlBank
from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.lab.recorded import own_records, plan_of, trials_of
from tunebank.measure.fake import FakeMeasurer
from tunebank.schedule import Scheduled
from tunebank.schedule.winograd import is_winograd, winograd_traces
from tunebank.search import ReuseSettings, TuneSettings, reuse, tune

DIRECT_US = 10.0


def convolution(size: int, **changes: Any) -> Kernel:
    func = conv2d(**{"size": size, "cin": 64, "cout": 64, **changes})
    return kernel(func.with_attr("layout_free_buffers", [1]))


def measurer(winograd_us: float) -> FakeMeasurer:
    def latency_us(candidate: Scheduled) -> float:
        return winograd_us if is_winograd(candidate.trace) else DIRECT_US

    return FakeMeasurer(latency_us)


def tuned(donor: Kernel, device: Device, *, winograd_us: float) -> SqlBank:
    bank = SqlBank("sqlite://")
    settings = TuneSettings("donor", trials_per_kernel=2, winograd=True)
    tune([donor], bank, device, measurer(winograd_us), settings)
    return bank


def test_tuning_measures_it_once_and_counts_no_trial(device: Device) -> None:
    donor = convolution(28)
    bank = tuned(donor, device, winograd_us=4.0)
    records = [r for r in bank.find(kernel_key=donor.key) if r.origin == "algorithm"]
    assert {r.trace for r in records} == {one.text for one in winograd_traces(donor, device)}
    model = model_of(donor)
    assert trials_of(model, own_records(model, bank, device, source="donor")).total == 2
    again = measurer(4.0)
    settings = TuneSettings("donor", trials_per_kernel=4, winograd=True)
    assert tune([donor], bank, device, again, settings) == 2
    assert not any(is_winograd(one.trace) for one in again.measured)


def test_full_auto_scheduling_does_not_have_it(device: Device) -> None:
    donor = convolution(28)
    bank = tuned(donor, device, winograd_us=4.0)
    model = model_of(donor)
    plan = plan_of(model, device, own_records(model, bank, device, source="donor"))
    assert plan.choices[donor.key].latency_us == DIRECT_US


def test_what_waits_to_be_measured_is_still_expected_to_be_best(device: Device) -> None:
    bank = tuned(convolution(28), device, winograd_us=4.0)
    model = model_of(*(convolution(size) for size in range(30, 37)))
    unmeasured = reuse(model, bank, device, None, ReuseSettings(budget_seconds=0.0))
    impatient = FakeMeasurer(interrupted_after=1)
    cut_short = reuse(model, bank, device, impatient, ReuseSettings(budget_seconds=60.0))
    assert cut_short.interrupted
    waiting = [key for key, choice in cut_short.choices.items() if choice.latency_us is None]
    assert 0 < len(waiting) < len(model.kernels)
    for key in waiting:
        expected, kept = unmeasured.choices[key].scheduled, cut_short.choices[key].scheduled
        assert expected is not None and kept is not None
        assert kept.trace.identity == expected.trace.identity


@pytest.mark.parametrize("epilogue", [(), ("bias", "relu")])
def test_unmeasured_a_donor_s_gain_is_trusted(epilogue: tuple[str, ...], device: Device) -> None:
    bank = tuned(convolution(28), device, winograd_us=4.0)
    target = convolution(30, epilogue=epilogue)
    plan = reuse(model_of(target), bank, device, None, ReuseSettings(budget_seconds=0.0))
    choice = plan.choices[target.key]
    assert choice.scheduled is not None
    assert is_winograd(choice.scheduled.trace)
    # Its parameters, or some that fit the target better.
    assert (choice.origin, choice.source) in {("transfer", "donor"), ("algorithm", "")}


def test_unmeasured_a_donor_s_loss_is_believed(device: Device) -> None:
    bank = tuned(convolution(28), device, winograd_us=1.05 * DIRECT_US)
    target = convolution(30)
    plan = reuse(model_of(target), bank, device, None, ReuseSettings(budget_seconds=0.0))
    choice = plan.choices[target.key]
    assert choice.scheduled is not None
    assert not is_winograd(choice.scheduled.trace)
