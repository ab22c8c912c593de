"""A kernel whose schedule fails only when the model is compiled gets another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from tvm import s_tir

from networks import write_small_network
from tunebank.api import default_plan
from tunebank.bank import SqlBank
from tunebank.build import build
from tunebank.build.fallback import fallbacks
from tunebank.device import Device
from tunebank.errors import TargetError
from tunebank.measure import LocalMeasurer, Measurement
from tunebank.model import Model, load_model
from tunebank.schedule import Scheduled
from tunebank.search import Choice, Plan, ReuseSettings, deposit_given_up, reuse


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, device: Device) -> Model:
    return load_model(write_small_network(tmp_path_factory.mktemp("fallback")), device)


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[SqlBank]:
    with closing(SqlBank(str(tmp_path / "bank.db"))) as bank:
        yield bank


def heaviest(plan: Plan) -> str:
    return max(plan.choices, key=lambda key: plan.choices[key].kernel.flops)


def for_a_gpu(choice: Choice) -> Choice:
    """Its outermost loop is spread over a GPU's blocks: legal, and no code for a CPU."""
    schedule = s_tir.Schedule(choice.kernel.module)
    block = schedule.get_sblock(choice.kernel.blocks[-1], "main")
    schedule.bind(schedule.get_loops(block)[0], "threadIdx.x")
    scheduled = Scheduled.from_schedule(choice.kernel, schedule)
    return replace(choice, scheduled=scheduled, origin="transfer", record_id="abc123")


def with_choice(plan: Plan, key: str, change: Callable[[Choice], Choice]) -> Plan:
    return replace(plan, choices={**plan.choices, key: change(plan.choices[key])})


def test_a_kernel_that_does_not_build_gets_its_default(
    model: Model, device: Device, measurer: LocalMeasurer, tmp_path: Path
) -> None:
    default = default_plan(model, device)
    key = heaviest(default)
    plan = with_choice(default, key, for_a_gpu)
    said: list[str] = []
    built = build(
        model, plan, device, measurer.pool, library=tmp_path / "kernels.so", report=said.append
    )
    choice, wanted = built.plan.choices[key], default.choices[key]
    assert choice.scheduled is not None
    assert wanted.scheduled is not None
    assert choice.scheduled.trace.identity == wanted.scheduled.trace.identity
    assert [(one.origin, one.record_id) for one in choice.given_up] == [("transfer", "abc123")]
    assert choice.given_up[0].result.status == "build_failed"
    assert len(said) == 1
    assert "it gets another schedule" in said[0]
    unchanged = {k: c for k, c in built.plan.choices.items() if k != key}
    assert all(c is plan.choices[k] for k, c in unchanged.items())


def test_fallbacks_end_with_the_reference(model: Model, device: Device) -> None:
    default = default_plan(model, device)
    choice = default.choices[heaviest(default)]
    failure = Measurement("build_failed", error="no")
    tried = [choice]
    while (other := next(fallbacks(tried[-1], failure, device), None)) is not None:
        tried.append(other)
    identities = [one.scheduled.trace.identity for one in tried if one.scheduled is not None]
    assert len(tried) == len(set(identities)) > 2
    assert [one.origin for one in tried[1:]] == ["default"] * (len(tried) - 2) + ["reference"]
    assert len(tried[-1].given_up) == len(tried) - 1


def test_where_nothing_builds_the_kernel_is_named(
    model: Model,
    device: Device,
    measurer: LocalMeasurer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    default = default_plan(model, device)
    key = heaviest(default)
    plan = with_choice(default, key, for_a_gpu)
    monkeypatch.setattr("tunebank.build.compile.fallbacks", lambda *_: iter(()))
    with pytest.raises(TargetError, match=plan.choices[key].kernel.name):
        build(model, plan, device, measurer.pool, library=tmp_path / "kernels.so")


def test_what_was_wrong_is_not_chosen_again(model: Model, device: Device, bank: SqlBank) -> None:
    settings = ReuseSettings(budget_seconds=0.0)
    first = reuse(model, bank, device, None, settings)
    key = heaviest(first)
    failure = Measurement("wrong", error="in the compiled model")
    second = with_choice(first, key, lambda one: next(fallbacks(one, failure, device)))
    assert deposit_given_up(second, bank, device, source="net") == 1
    (record,) = bank.find(status=None)
    assert (record.status, record.kernel_key, record.origin) == ("wrong", key, "default")
    again = reuse(model, bank, device, None, settings)
    chosen, before = again.choices[key].scheduled, first.choices[key].scheduled
    assert chosen is not None
    assert before is not None
    assert chosen.trace.identity != before.trace.identity
    hidden = reuse(model, bank, device, None, replace(settings, exclude_sources=("net",)))
    assert hidden.choices[key].scheduled is not None
    assert hidden.choices[key].scheduled.trace.identity == before.trace.identity
