"""Plans tried in the model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tvm
from tvm import s_tir

from networks import write_small_network
from tunebank.api import default_plan
from tunebank.bank import SqlBank
from tunebank.build import find_plan
from tunebank.build.confirm import confirmed
from tunebank.device import Device
from tunebank.measure import LocalMeasurer
from tunebank.model import Model, load_model
from tunebank.schedule import Scheduled
from tunebank.search import Choice, Plan, ReuseSettings


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, device: Device) -> Model:
    return load_model(write_small_network(tmp_path_factory.mktemp("confirm")), device)


def unscheduled(choice: Choice) -> Choice:
    """The kernel as a bare loop nest: right, and slow."""
    schedule = s_tir.Schedule(choice.kernel.module)
    return replace(
        choice, scheduled=Scheduled.from_schedule(choice.kernel, schedule), latency_us=1.0
    )


def heaviest(plan: Plan) -> str:
    return max(plan.choices, key=lambda key: plan.choices[key].kernel.flops)


def test_what_is_faster_in_the_model_is_taken(
    model: Model, device: Device, measurer: LocalMeasurer
) -> None:
    default = default_plan(model, device)
    key = heaviest(default)
    slow = replace(unscheduled(default.choices[key]), default=default.choices[key])
    plan = replace(default, choices={**default.choices, key: slow}, search_seconds=5.0)
    best = confirmed(model, plan, device, measurer)
    assert best.choices[key].scheduled is default.choices[key].scheduled
    assert best.choices[key].checked
    assert best.search_seconds > 5.0


def test_what_is_slower_in_the_model_is_not(
    model: Model, device: Device, measurer: LocalMeasurer
) -> None:
    default = default_plan(model, device)
    key = heaviest(default)
    fast = replace(default.choices[key], alternatives=(unscheduled(default.choices[key]),))
    plan = replace(default, choices={**default.choices, key: fast})
    assert confirmed(model, plan, device, measurer).choices[key] is fast


def test_wrong_numbers_are_not_taken_however_fast(
    model: Model, device: Device, measurer: LocalMeasurer
) -> None:
    default = default_plan(model, device)
    key = heaviest(default)
    choice = default.choices[key]
    assert choice.scheduled is not None
    text = choice.scheduled.module.script()
    assert "* param_0" in text or "*" in text
    wrong = s_tir.Schedule(tvm.script.from_source(text.replace(" * ", " + ", 1)))
    spoiled = replace(choice, scheduled=replace(choice.scheduled, schedule=wrong), latency_us=1.0)
    plan = replace(
        default,
        choices={**default.choices, key: replace(unscheduled(choice), alternatives=(spoiled,))},
    )
    best = confirmed(model, plan, device, measurer)
    assert best.choices[key] is plan.choices[key]


def test_without_alternatives_nothing_is_built(
    model: Model, device: Device, measurer: LocalMeasurer
) -> None:
    plan = default_plan(model, device)
    said: list[str] = []
    assert confirmed(model, plan, device, measurer, report=said.append) is plan
    assert said == []


def test_a_search_has_alternatives_and_keeps_its_budget(
    model: Model, device: Device, measurer: LocalMeasurer
) -> None:
    said: list[object] = []
    plan = find_plan(
        model, SqlBank("sqlite://"), device, measurer, ReuseSettings(20.0), report=said.append
    )
    assert "trying the plan in the model" in said
    assert plan.search_seconds < 25.0
    assert all(c.checked for c in plan.choices.values() if c.kernel.flops and c.latency_us)
    short = find_plan(model, SqlBank("sqlite://"), device, measurer, ReuseSettings(2.0))
    assert short.search_seconds < 5.0
