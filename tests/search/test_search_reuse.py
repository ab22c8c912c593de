"""The reuse loop with a measurer that only pretends: what is measured, chosen and deposited."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import pytest

from programs import elementwise, kernel, matmul, model_of, softmax
from tunebank.bank import Bank, BankChain, SqlBank
from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.measure import Measurement
from tunebank.measure.fake import FakeMeasurer, hashed_latency_us
from tunebank.schedule import Scheduled
from tunebank.search import Plan, Progress, ReuseSettings, reuse

ENOUGH = ReuseSettings(budget_seconds=6.0)


def dense(*, n: int = 200, k: int = 96) -> Kernel:
    """A fully connected layer of the class that the donors are of."""
    func = matmul(m=1, n=n, k=k, epilogue=["bias"]).with_attr("layout_free_buffers", [1, 2])
    return kernel(func, name="dense", weight=2)


@pytest.fixture
def bank(resnet18_bank: Bank) -> Bank:
    """The donors behind an empty bank that takes the deposits."""
    return BankChain([SqlBank("sqlite://"), resnet18_bank])


def of_kernel(fake: FakeMeasurer, one: Kernel) -> list[Scheduled]:
    return [candidate for candidate in fake.measured if candidate.kernel.key == one.key]


def all_but_first_fail(status: str) -> Callable[[Scheduled], str | None]:
    """Every candidate of a kernel but the first one measured."""
    first: dict[str, Scheduled] = {}

    def fails(candidate: Scheduled) -> str | None:
        return None if first.setdefault(candidate.kernel.key, candidate) is candidate else status

    return fails


def test_the_default_is_among_the_first_and_the_fastest_is_chosen(
    bank: Bank, device: Device
) -> None:
    kernels = (dense(), dense(n=96), kernel(softmax()), kernel(elementwise()))
    fake = FakeMeasurer()
    plan = reuse(model_of(*kernels), bank, device, fake, ENOUGH)
    assert set(plan.choices) == {one.key for one in kernels}
    for one in kernels:
        choice, measured = plan.choices[one.key], of_kernel(fake, one)
        latencies = [hashed_latency_us(candidate) for candidate in measured]
        assert choice.untuned_us in latencies[:2], "but for what is expected to be faster"
        assert choice.latency_us == min(latencies)
        assert choice.scheduled is measured[latencies.index(min(latencies))]
        assert choice.measured == len(measured)
        assert choice.failed == 0
    assert plan.measured == len(fake.measured)
    assert plan.kernels_us <= plan.untuned_us
    assert not plan.interrupted


def test_a_donor_that_wins_is_named(bank: Bank, device: Device) -> None:
    target = dense()
    reuse(model_of(target), bank, device, FakeMeasurer(), ENOUGH)
    winner, *_ = (record for record in bank.find(source="model") if record.origin == "transfer")

    def latency_us(candidate: Scheduled) -> float:
        return 1.0 if candidate.trace.text == winner.trace else 10.0

    settings = ReuseSettings(budget_seconds=6.0, exclude_sources=["model"])
    plan = reuse(model_of(target), bank, device, FakeMeasurer(latency_us), settings)
    choice = plan.choices[target.key]
    assert (choice.untuned_us, choice.latency_us) == (10.0, 1.0)
    assert (choice.origin, choice.match, choice.source) == ("transfer", "class", "resnet18")
    assert choice.record_id == winner.donor_id
    assert choice.candidates >= 2


@pytest.mark.parametrize("status", ["wrong", "crashed", "timeout", "build_failed"])
def test_what_fails_is_never_chosen(status: str, bank: Bank, device: Device) -> None:
    kernels = (dense(), kernel(matmul()))
    fake = FakeMeasurer(lambda _: 1.0, fails=all_but_first_fail(status))  # type: ignore[arg-type]
    settings = ReuseSettings(budget_seconds=3.0)
    plan = reuse(model_of(*kernels), bank, device, fake, settings)
    for one in kernels:
        choice, measured = plan.choices[one.key], of_kernel(fake, one)
        assert len(measured) >= 2
        assert choice.scheduled is measured[0]
        assert (choice.origin, choice.latency_us, choice.untuned_us) == ("default", 1.0, 1.0)
        assert choice.failed == len(measured) - 1


def test_a_default_that_fails_gives_way_to_a_donor(bank: Bank, device: Device) -> None:
    first: list[Scheduled] = []

    def only_the_default(candidate: Scheduled) -> str | None:
        first.append(candidate)
        return "wrong" if candidate is first[0] else None

    fake = FakeMeasurer(fails=only_the_default)  # type: ignore[arg-type]
    choice = next(iter(reuse(model_of(dense()), bank, device, fake, ENOUGH).choices.values()))
    assert choice.scheduled in fake.measured[1:]
    assert choice.untuned_us is None
    assert choice.latency_us is not None


@pytest.mark.parametrize("make", [dense, lambda: kernel(elementwise()), lambda: kernel(softmax())])
def test_if_all_fail_none_of_them_is_chosen(make: Callable[[], Kernel], device: Device) -> None:
    target = make()
    fake = FakeMeasurer(fails=lambda _: "wrong")
    settings = ReuseSettings(budget_seconds=1.5)
    plan = reuse(model_of(target), SqlBank("sqlite://"), device, fake, settings)
    choice = plan.choices[target.key]
    failed = {candidate.trace.text for candidate in fake.measured}
    assert failed
    assert choice.scheduled is None or choice.scheduled.trace.text not in failed
    assert choice.latency_us is None
    assert choice.failed == len(fake.measured)


def test_numbers_that_nobody_checked_are_not_chosen(bank: Bank, device: Device) -> None:
    class Careless(FakeMeasurer):
        def measure(
            self, candidates: Sequence[Scheduled], *, best_us: dict[str, float]
        ) -> list[Measurement]:
            results = super().measure(candidates, best_us=best_us)
            checked = len(self.batches) == 1  # the default, and what came with it
            return [
                Measurement("ok", (100.0 if checked else 1.0,), checked=checked) for _ in results
            ]

    fake = Careless()
    plan = reuse(model_of(dense()), bank, device, fake, ReuseSettings(budget_seconds=2.0))
    (choice,) = plan.choices.values()
    assert len(fake.batches) >= 2
    assert choice.latency_us == 100.0
    assert choice.scheduled in fake.batches[0]


def test_a_kernel_without_donors_gets_its_default(device: Device) -> None:
    kernels = (dense(), kernel(elementwise()), kernel(softmax()))
    fake = FakeMeasurer(lambda _: 5.0)
    settings = ReuseSettings(budget_seconds=2.0)
    plan = reuse(model_of(*kernels), SqlBank("sqlite://"), device, fake, settings)
    for one in kernels:
        choice = plan.choices[one.key]
        assert choice.scheduled is of_kernel(fake, one)[0]
        assert (choice.origin, choice.match, choice.source) == ("default", "none", "")


def test_a_hidden_model_gives_no_donors(bank: Bank, device: Device) -> None:
    settings = ReuseSettings(budget_seconds=0.0, exclude_sources=["resnet18"])
    (choice,) = reuse(model_of(dense()), bank, device, None, settings).choices.values()
    assert (choice.match, choice.candidates, choice.source) == ("none", 0, "")


@pytest.mark.parametrize("has_measurer", [True, False])
def test_without_a_budget_nothing_is_measured(
    has_measurer: bool, bank: Bank, device: Device
) -> None:
    kernels = (dense(), kernel(softmax()), kernel(elementwise()))
    fake = FakeMeasurer()
    budget = 0.0 if has_measurer else 10.0
    measurer = fake if has_measurer else None
    settings = ReuseSettings(budget_seconds=budget)
    plan = reuse(model_of(*kernels), bank, device, measurer, settings)
    assert fake.batches == []
    assert plan.measured == 0
    for choice in plan.choices.values():
        assert choice.scheduled is not None
        assert choice.latency_us is None
    assert plan.choices[kernels[0].key].match == "class"
    assert bank.stats().records == {}


def test_the_budget_is_kept(bank: Bank, device: Device) -> None:
    fake = FakeMeasurer(seconds_per_candidate=0.05)
    kernels = [dense(n=n) for n in (64, 96, 128)]
    start = time.monotonic()
    plan = reuse(model_of(*kernels), bank, device, fake, ReuseSettings(budget_seconds=2.0))
    elapsed = time.monotonic() - start
    assert elapsed < 3.5, "a batch more, at most"
    assert plan.search_seconds <= elapsed
    assert all(choice.latency_us is not None for choice in plan.choices.values())
    assert plan.measured * 0.05 < plan.search_seconds


def test_a_budget_too_short_for_all_still_gives_every_kernel_a_schedule(
    bank: Bank, device: Device
) -> None:
    kernels = [dense(n=n) for n in range(32, 32 + 8 * 16, 16)]
    fake = FakeMeasurer(seconds_per_candidate=0.1)
    plan = reuse(model_of(*kernels), bank, device, fake, ReuseSettings(budget_seconds=0.2))
    assert any(choice.latency_us is None for choice in plan.choices.values())
    assert all(choice.scheduled is not None for choice in plan.choices.values())
    assert len(plan.choices) == len(kernels)


def test_what_was_measured_is_deposited_batch_by_batch(bank: Bank, device: Device) -> None:
    fake = FakeMeasurer(interrupted_after=2)
    plan = reuse(model_of(dense(), dense(n=96)), bank, device, fake, ENOUGH)
    assert plan.interrupted
    assert len(fake.batches) == 2
    records = [record for record in bank.find(status=None) if record.source == "model"]
    assert len(records) == len(fake.measured) == plan.measured
    assert {r.trace for r in records} == {c.trace.text for c in fake.measured}
    assert all(choice.scheduled is not None for choice in plan.choices.values())


def test_records_say_where_they_came_from(bank: Bank, device: Device) -> None:
    target = dense()
    fake = FakeMeasurer(fails=lambda c: "timeout" if hashed_latency_us(c) > 700 else None)
    reuse(model_of(target), bank, device, fake, ENOUGH)
    records = bank.find(source="model", status=None)
    assert len(records) == len({c.trace.text for c in fake.measured})
    by_trace = {record.trace: record for record in records}
    default = by_trace[fake.measured[0].trace.text]
    assert (default.origin, default.donor_id) == ("default", None)
    transferred = [record for record in records if record.origin == "transfer"]
    assert transferred
    donors = {record.id for record in bank.find(source="resnet18")}
    assert {record.donor_id for record in transferred} <= donors
    for candidate in fake.measured:
        record = by_trace[candidate.trace.text]
        assert record.kernel_key == target.key
        assert (record.device, record.threads) == (device.fingerprint, device.threads)
        if hashed_latency_us(candidate) > 700:
            assert (record.status, record.latency_us) == ("timeout", None)
            assert record.error
        else:
            assert (record.status, record.latency_us) == ("ok", hashed_latency_us(candidate))


def test_deposits_can_be_left_out(bank: Bank, device: Device) -> None:
    fake = FakeMeasurer()
    settings = ReuseSettings(budget_seconds=1.5, deposit=False)
    reuse(model_of(dense()), bank, device, fake, settings)
    assert fake.measured
    assert bank.find(source="model", status=None) == []


def test_the_second_time_the_own_records_are_the_donors(bank: Bank, device: Device) -> None:
    target = dense()
    short = ReuseSettings(budget_seconds=1.5)
    first: Plan = reuse(model_of(target), bank, device, FakeMeasurer(), short)
    best = first.choices[target.key]
    nothing = ReuseSettings(budget_seconds=0.0)
    again = reuse(model_of(target), bank, device, None, nothing).choices[target.key]
    assert again.match == "exact"
    assert best.scheduled is not None
    second = reuse(model_of(target), bank, device, FakeMeasurer(), short).choices[target.key]
    assert second.latency_us is not None
    assert best.latency_us is not None
    assert second.latency_us <= best.latency_us


def test_nothing_is_measured_twice(bank: Bank, device: Device) -> None:
    fake = FakeMeasurer()
    reuse(model_of(dense(), dense(n=96)), bank, device, fake, ENOUGH)
    texts = [(candidate.kernel.key, candidate.trace.text) for candidate in fake.measured]
    assert len(set(texts)) == len(texts)


def test_the_measurer_is_told_the_best_so_far(bank: Bank, device: Device) -> None:
    target = dense()
    fake = FakeMeasurer()
    reuse(model_of(target), bank, device, fake, ENOUGH)
    assert fake.best_us[0] == {}
    best = float("inf")
    for batch, given in zip(fake.batches[:-1], fake.best_us[1:], strict=True):
        best = min(best, *map(hashed_latency_us, batch))
        assert given == {target.key: best}


def test_progress_is_reported_after_each_batch(bank: Bank, device: Device) -> None:
    reports: list[Progress] = []
    fake = FakeMeasurer()
    target = dense()
    plan = reuse(model_of(target), bank, device, fake, ENOUGH, report=reports.append)
    assert [one.measured for one in reports] == [
        sum(map(len, fake.batches[: n + 1])) for n in range(len(fake.batches))
    ]
    seconds = [one.seconds for one in reports]
    assert seconds == sorted(seconds)
    assert seconds[-1] <= plan.search_seconds
    assert reports[-1].kernels_us == pytest.approx(plan.kernels_us)
    totals = [one.kernels_us for one in reports if one.kernels_us is not None]
    assert totals == sorted(totals, reverse=True)


def test_parameters_of_our_own_programs_are_refined(device: Device) -> None:
    one = kernel(matmul(m=197, n=197, k=64))

    def latency_us(candidate: Scheduled) -> float:
        step = candidate.trace.instructions[0]
        return 10.0 + abs(step.attributes[0] - 5) if step.kind == "Panels" else 100.0

    fake = FakeMeasurer(latency_us)
    plan = reuse(model_of(one), SqlBank("sqlite://"), device, fake, ENOUGH)
    choice = plan.choices[one.key]
    assert choice.untuned_us is not None
    assert choice.untuned_us > 10.0, "five rows are not the default"
    assert (choice.latency_us, choice.origin) == (10.0, "refine")
    assert len({candidate.trace.identity for candidate in fake.measured}) == len(fake.measured)
