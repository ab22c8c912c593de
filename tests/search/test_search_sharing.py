"""Kernels that share weights: found, served by each other's schedules, agreed on one packing."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from twins import twins

from programs import conv2d, kernel
from tunebank.bank import SqlBank
from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.measure import Measurement
from tunebank.measure.fake import FakeMeasurer
from tunebank.measure.packing import packings
from tunebank.model import Model
from tunebank.schedule import IllegalScheduleError, Scheduled, Space, default_traces
from tunebank.search import Plan, ReuseSettings, reuse
from tunebank.search.sharing import PLAIN, packing_at, packing_text, weight_groups
from tunebank.search.siblings import level_of, sibling_traces

BUDGET = ReuseSettings(budget_seconds=3.0)
NOTHING = ReuseSettings(budget_seconds=0.0)


def of_rows(model: Model, rows: int) -> Kernel:
    return next(one for one in model.kernels if int(one.func.params[0].shape[0]) == rows)


def packing_of(plan: Plan, one: Kernel) -> str:
    scheduled = plan.choices[one.key].scheduled
    assert scheduled is not None
    return packing_at(scheduled.module, 1)


def default_packing(one: Kernel, device: Device) -> str:
    """That of the schedule that is measured first."""
    space = Space(one, device)
    return packing_at(space.apply(default_traces(space)[0]).module, 1)


def legal(space: Space) -> list[Scheduled]:
    """The default schedules that are legal."""
    found = []
    for trace in default_traces(space):
        try:
            found.append(space.apply(trace))
        except IllegalScheduleError:
            continue
    return found


def unlike_twins(device: Device) -> tuple[Model, Kernel, Kernel]:
    """A model whose light and heavy kernel, left alone, pack their weights in two ways."""
    for most, columns in itertools.product((7, 4, 8), (64, 128, 100, 60)):
        model = twins(rows=(1, most), columns=columns)
        light, heavy = of_rows(model, 1), of_rows(model, most)
        defaults = [legal(Space(kernel, device))[0] for kernel in (light, heavy)]
        has_loops = all(one.schedule is not None for one in defaults)  # else both are alike
        if has_loops and default_packing(light, device) != default_packing(heavy, device):
            return model, light, heavy
    pytest.fail("no width at which the defaults differ")


class Strict(FakeMeasurer):
    """Checks numbers as the real one does: of what beats the best so far, and of that the best."""

    def measure(
        self, candidates: Sequence[Scheduled], *, best_us: dict[str, float]
    ) -> list[Measurement]:
        results = super().measure(candidates, best_us=best_us)
        best = dict(best_us)
        first: dict[str, int] = {}
        for index, (candidate, result) in enumerate(zip(candidates, results, strict=True)):
            latency = result.latency_us
            if latency is not None and latency < best.get(candidate.kernel.key, float("inf")):
                best[candidate.kernel.key] = latency
                first[candidate.kernel.key] = index
        checked = set(first.values())
        return [replace(result, checked=i in checked) for i, result in enumerate(results)]


def at_odds(heavy: Kernel, wanted: str, *, penalty: float) -> Callable[[Scheduled], float]:
    """Latencies: 100 for the heavy kernel under the packing it wants, 150 under another.

    The others take 10 under any other packing, and so many times more under that one.
    """

    def latency_us(candidate: Scheduled) -> float:
        is_wanted = packing_at(candidate.module, 1) == wanted
        if candidate.kernel.key == heavy.key:
            return 100.0 if is_wanted else 150.0
        return 10.0 * penalty if is_wanted else 10.0

    return latency_us


def test_kernels_that_take_the_same_weights_are_a_group() -> None:
    model = twins(rows=(1, 8, 4))
    (group,) = weight_groups(model)
    assert list(group.positions.items()) == [(of_rows(model, n).key, 1) for n in (8, 4, 1)]
    assert group.weight_bytes == 2 * 64 * 64 * 4


def test_one_set_of_shapes_has_no_groups() -> None:
    model = twins()
    assert weight_groups(replace(model, functions=model.functions[:1])) == ()
    assert weight_groups(twins(rows=(8,))) == ()


def test_a_packing_is_told_by_what_it_does_and_not_by_its_names(device: Device) -> None:
    model = twins(rows=(8,), columns=96)
    space = Space(of_rows(model, 8), device)
    found: dict[str, bytes] = {}
    weight = model.module["main"].body.blocks[0].bindings[0].value.args[1].fields[1].value.numpy()
    for scheduled in [
        one for other in (space, Space(space.kernel, device)) for one in legal(other)
    ]:
        text = packing_at(scheduled.module, 1)
        (packing,) = (p for p in packings(scheduled.module) if p.position == 1)
        packed = packing.apply(weight)
        whole = packed.tobytes() + str(packed.shape).encode()
        assert found.setdefault(text, whole) == whole, "equal texts, equal packings"
    assert len(set(found.values())) == len(found) >= 2, "and the other way round"


def test_a_packing_that_changes_nothing_is_plain(device: Device) -> None:
    func = conv2d(cin=32, cout=32).with_attr("layout_free_buffers", [1])
    space = Space(kernel(func), device)
    texts = set()
    for scheduled in legal(space):
        (packing,) = packings(scheduled.module)
        shape = [int(extent) for extent in packing.block.body.buffer.shape]
        texts.add(packing_text(packing))
        assert (packing_text(packing) == PLAIN) == (shape == [3, 3, 32, 32])
    assert PLAIN in texts


@pytest.mark.parametrize(("rows", "other"), [(1, 8), (8, 1), (8, 12)])
def test_a_sibling_gets_the_schedule_with_its_packing(
    rows: int, other: int, device: Device
) -> None:
    model = twins(rows=(rows, other), columns=96)
    space, target = Space(of_rows(model, rows), device), Space(of_rows(model, other), device)
    for scheduled in legal(space):
        traces = sibling_traces(scheduled.trace, space.kernel, target.kernel, device)
        assert len({trace.identity for trace in traces}) == len(traces) >= 1
        for trace in traces:
            carried = target.apply(trace)
            assert packing_at(carried.module, 1) == packing_at(scheduled.module, 1)


def test_siblings_of_two_classes_are_served_too(device: Device) -> None:
    # A bias is read at [n, 0, 0, c] in a batch of 1, and at [0, 0, 0, c] in a larger one.
    one, other = (
        kernel(conv2d(size=size, epilogue=["bias", step]).with_attr("layout_free_buffers", [1]))
        for size, step in ((8, "relu"), (16, "tanh"))
    )
    assert one.class_key != other.class_key
    space = Space(other, device)
    for scheduled in legal(Space(one, device)):
        first, *_ = sibling_traces(scheduled.trace, one, other, device)
        assert packing_at(space.apply(first).module, 1) == packing_at(scheduled.module, 1)
    assert level_of((one.key, one.class_key), other) == "anchor"
    assert level_of(("", one.class_key), one) == "class"


def test_kernels_of_other_loops_are_no_siblings(device: Device) -> None:
    one, other = kernel(conv2d()), of_rows(twins(), 8)
    (scheduled, *_) = legal(Space(one, device))
    assert sibling_traces(scheduled.trace, one, other, device) == []


def test_unmeasured_the_others_follow_the_heaviest(device: Device) -> None:
    model, light, heavy = unlike_twins(device)
    plan = reuse(model, SqlBank("sqlite://"), device, None, NOTHING)
    assert packing_of(plan, light) == packing_of(plan, heavy) == default_packing(heavy, device)
    for choice in plan.choices.values():
        assert (choice.origin, choice.match, choice.latency_us) == ("default", "none", None)


def test_what_was_not_measured_follows_what_was(device: Device) -> None:
    model = twins(rows=(1, 6, 12), columns=96)
    light, heavy = of_rows(model, 1), of_rows(model, 12)
    fake = FakeMeasurer(seconds_per_candidate=0.4)  # there is no time for the last kernel
    settings = ReuseSettings(budget_seconds=1.0)
    plan = reuse(model, SqlBank("sqlite://"), device, fake, settings)
    assert plan.choices[heavy.key].latency_us is not None
    assert plan.choices[light.key].latency_us is None
    assert packing_of(plan, light) == packing_of(plan, heavy)


def test_a_siblings_record_is_the_donor(device: Device) -> None:
    model, light, heavy = unlike_twins(device)
    bank, wanted = SqlBank("sqlite://"), default_packing(heavy, device)
    default = legal(Space(heavy, device))[0].trace
    carried = {trace.identity for trace in sibling_traces(default, heavy, light, device)}
    carried -= {legal(Space(light, device))[0].trace.identity}  # its own

    def latency_us(candidate: Scheduled) -> float:
        if candidate.kernel.key == heavy.key:
            return 100.0 if packing_at(candidate.module, 1) == wanted else 150.0
        return 5.0 if candidate.trace.identity in carried else 50.0

    plan = reuse(model, bank, device, FakeMeasurer(latency_us), BUDGET)
    choice = plan.choices[light.key]
    assert choice.latency_us == 5.0
    assert (choice.origin, choice.match, choice.source) == ("transfer", "class", "twins")
    assert choice.candidates >= 1
    donor = bank.get(choice.record_id)
    assert donor is not None
    assert (donor.kernel_key, donor.source) == (heavy.key, "twins")
    assert packing_of(plan, light) == packing_of(plan, heavy) == wanted


@pytest.mark.parametrize("measurer", [FakeMeasurer, Strict])
def test_they_agree_where_it_costs_little(measurer: type[FakeMeasurer], device: Device) -> None:
    model, light, heavy = unlike_twins(device)
    wanted = default_packing(heavy, device)
    fake = measurer(at_odds(heavy, wanted, penalty=1.5))  # 115 in all, against 110
    plan = reuse(model, SqlBank("sqlite://"), device, fake, BUDGET)
    assert packing_of(plan, light) == packing_of(plan, heavy) == wanted
    assert plan.choices[heavy.key].latency_us == 100.0
    assert plan.choices[light.key].latency_us == 15.0
    assert plan.choices[light.key].scheduled in fake.measured


def test_they_keep_their_own_where_agreeing_costs_much(device: Device) -> None:
    model, light, heavy = unlike_twins(device)
    wanted = default_packing(heavy, device)
    fake = FakeMeasurer(at_odds(heavy, wanted, penalty=4.0))  # 140 in all, against 110
    plan = reuse(model, SqlBank("sqlite://"), device, fake, BUDGET)
    assert packing_of(plan, heavy) == wanted != packing_of(plan, light)
    assert [plan.choices[one.key].latency_us for one in (heavy, light)] == [100.0, 10.0]


def test_wrong_numbers_are_not_agreed_on(device: Device) -> None:
    model, light, heavy = unlike_twins(device)
    wanted = default_packing(heavy, device)

    def fails(candidate: Scheduled) -> str | None:
        is_wanted = packing_at(candidate.module, 1) == wanted
        return "wrong" if is_wanted and candidate.kernel.key == light.key else None

    fake = FakeMeasurer(at_odds(heavy, wanted, penalty=1.0), fails=fails)  # type: ignore[arg-type]
    plan = reuse(model, SqlBank("sqlite://"), device, fake, BUDGET)
    assert packing_of(plan, light) != wanted == packing_of(plan, heavy)
    assert plan.choices[light.key].latency_us == 10.0


def test_the_budget_is_kept(device: Device) -> None:
    model = twins(rows=(1, 4, 12), columns=96)
    heavy = of_rows(model, 12)
    latency_us = at_odds(heavy, default_packing(heavy, device), penalty=1.1)
    fake = Strict(latency_us, seconds_per_candidate=0.05)
    start = time.monotonic()
    plan = reuse(model, SqlBank("sqlite://"), device, fake, ReuseSettings(budget_seconds=2.0))
    assert time.monotonic() - start < 3.5, "a batch more, at most"
    assert all(choice.latency_us is not None for choice in plan.choices.values())
