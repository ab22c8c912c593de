"""Two kernels made one: which, what it is in a plan, and that it can be undone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tvm import s_tir

from networks import write_attention_network, write_separable_network
from tunebank.api import compile_model, default_plan
from tunebank.bank import SqlBank
from tunebank.build.confirm import confirmed
from tunebank.build.place import kernel_key_of, placed_module
from tunebank.device import Device
from tunebank.measure import LocalMeasurer
from tunebank.model import Model, joined, load_model
from tunebank.schedule import Scheduled, attention
from tunebank.schedule.lines import KIND
from tunebank.search import Plan, ReuseSettings, reuse
from tunebank.search.joining import worthwhile_joins


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_separable_network(tmp_path_factory.mktemp("net"))


@pytest.fixture(scope="module")
def model(path: Path, device: Device) -> Model:
    return load_model(path, device)


@pytest.fixture(scope="module")
def plan(model: Model, device: Device) -> Plan:
    """Without a donor, and unmeasured."""
    return reuse(model, SqlBank("sqlite://"), device, None, ReuseSettings(budget_seconds=0.0))


def test_an_expansion_and_its_depthwise_convolution_are_joined(
    model: Model, device: Device
) -> None:
    joins = worthwhile_joins(model, device, winograd=True)
    together = joined(model, joins)
    assert len(joins) == 1
    assert len(together.kernels) == len(model.kernels) - 1
    assert together.flops == model.flops
    (join,) = joins
    keys = {kernel.key for kernel in together.kernels}
    assert joins[join] in keys
    assert not {join.first, join.second} & keys
    assert joined(together, joins).kernels == together.kernels, "once is enough"


@pytest.mark.parametrize(
    "changes",
    [
        {"is_read_twice": True},
        {"is_output": True},
        {"expansion": 3},  # Winograd's filtering suits it
        {"inputs": 256},  # so long a sum hides what is written and read between the two
    ],
    ids=str,
)
def test_others_are_left_apart(changes: dict[str, int], tmp_path: Path, device: Device) -> None:
    model = load_model(write_separable_network(tmp_path, **changes), device)
    assert worthwhile_joins(model, device, winograd=True) == {}
    assert joined(model, {}) is model


def test_a_plan_is_for_the_joint_kernels(model: Model, device: Device, plan: Plan) -> None:
    (joint,) = plan.joins.values()
    choice = plan.choices[joint]
    assert choice.scheduled is not None
    assert choice.scheduled.trace.instructions[0].kind == KIND
    assert (choice.match, choice.origin, choice.source) == ("none", "default", "")
    assert set(plan.choices) == {one.key for one in joined(model, plan.joins).kernels}
    symbols = [str(var.name_hint) for var, _ in placed_module(model, plan).functions_items()]
    assert joint in map(kernel_key_of, symbols)


def test_it_can_be_left_out(model: Model, device: Device) -> None:
    settings = ReuseSettings(budget_seconds=0.0, joins=False)
    assert reuse(model, SqlBank("sqlite://"), device, None, settings).joins == {}
    assert default_plan(model, device).joins == {}


def test_the_model_s_numbers_agree(path: Path, tmp_path: Path) -> None:
    bank = f"sqlite:///{tmp_path / 'bank.db'}"
    result = compile_model(path, tmp_path / "out", banks=[bank], threads=1, time_budget_seconds=0.0)
    assert result.manifest.verified is not None
    assert result.manifest.verified.passed
    assert result.plan.joins


def made_slow(plan: Plan, joint: str) -> Plan:
    """The joint kernel as a bare loop nest."""
    kernel = plan.choices[joint].kernel
    schedule = s_tir.Schedule(kernel.module)
    schedule.parallel(schedule.get_loops(kernel.blocks[1])[0])  # of one step
    bare = Scheduled.from_schedule(kernel, schedule)
    slow = replace(plan.choices[joint], scheduled=bare, latency_us=1.0, checked=True)
    return replace(plan, choices={**plan.choices, joint: slow})


def test_what_is_slower_together_is_taken_apart(
    model: Model, device: Device, plan: Plan, measurer: LocalMeasurer
) -> None:
    (joint,) = plan.joins.values()
    best = confirmed(model, made_slow(plan, joint), device, measurer)
    assert best.joins == {}
    assert set(best.choices) == {one.key for one in model.kernels}
    (join,) = plan.joins
    assert all(best.choices[key].checked for key in (join.first, join.second))


def test_attention_is_joined_and_taken_apart_whole(
    tmp_path: Path, device: Device, measurer: LocalMeasurer
) -> None:
    model = load_model(write_attention_network(tmp_path, length=200, depth=32), device)
    bank, settings = SqlBank("sqlite://"), ReuseSettings(budget_seconds=0.0)
    plan = reuse(model, bank, device, None, settings)
    (joint,) = set(plan.joins.values()) & set(plan.choices)
    scheduled = plan.choices[joint].scheduled
    assert scheduled is not None
    assert scheduled.trace.instructions[0].kind == attention.KIND
    assert len(plan.choices) == len(model.kernels) - 2
    best = confirmed(model, made_slow(plan, joint), device, measurer)
    assert best.joins == {}
    assert set(best.choices) == {one.key for one in model.kernels}


def test_what_is_faster_together_stays(
    model: Model, device: Device, plan: Plan, measurer: LocalMeasurer
) -> None:
    assert confirmed(model, plan, device, measurer).joins == plan.joins
