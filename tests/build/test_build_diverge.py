"""A wrong kernel in an artifact is named; where none is, that is said."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import tvm
from mutants import write_conv_mutant
from tvm import s_tir

from small_nets import write_conv_net
from tunebank.api import default_plan
from tunebank.build import first_divergence, inspect_draft, with_right_kernels, write_artifact
from tunebank.device import Device, detect_device
from tunebank.errors import VerificationError, WrongKernelError
from tunebank.measure import LocalMeasurer
from tunebank.model import Model, load_model
from tunebank.runtime.feed import random_feed
from tunebank.runtime.manifest import Manifest
from tunebank.search import Choice, Plan

Prepared = tuple[Model, Plan, Device]
Matches = Callable[[Choice], bool]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    device = detect_device()
    path = write_conv_net(tmp_path_factory.mktemp("net") / "net.onnx")
    model = load_model(path, device)
    return model, default_plan(model, device), device


def _spoiled(plan: Plan, matches: Matches, right: str, wrong: str) -> Plan:
    """The plan with one thing replaced in the program of one kernel."""
    key, choice = next((k, c) for k, c in plan.choices.items() if matches(c))
    assert choice.scheduled is not None
    text = choice.scheduled.module.script()
    assert right in text, "the fault changes nothing"
    schedule = s_tir.Schedule(tvm.script.from_source(text.replace(right, wrong)))
    # A schedule of somebody's, so that there is a record to name.
    changed = replace(
        choice,
        scheduled=replace(choice.scheduled, schedule=schedule),
        source="resnet18",
        record_id="abc123",
        match="class",
        origin="transfer",
    )
    return replace(plan, choices={**plan.choices, key: changed})


def _is_second_layer(choice: Choice) -> bool:
    return choice.kernel.name == "conv2d_add_relu" and choice.kernel.weight == 2


def _is_mean(choice: Choice) -> bool:
    return choice.kernel.name == "mean"


@pytest.mark.parametrize(
    ("matches", "right", "wrong", "name", "call"),
    [
        # Calls: a transposition, the first layer, twice the second, the mean, the classifier.
        (_is_second_layer, "T.max(", "T.min(", "conv2d_add_relu", 3),
        (_is_mean, "/ T.float32(256.0)", "/ T.float32(257.0)", "mean", 5),
    ],
)
def test_the_wrong_kernel_is_named(
    prepared: Prepared,
    tmp_path: Path,
    matches: Matches,
    right: str,
    wrong: str,
    name: str,
    call: int,
) -> None:
    model, plan, device = prepared
    spoiled = _spoiled(plan, matches, right, wrong)
    write_artifact(tmp_path / "out", model, spoiled, device)
    found = first_divergence(model, device, tmp_path / "out", random_feed(model.inputs))
    assert (found.kernel, found.call, found.unknown) == (name, call, 0)
    key = next(choice.kernel for choice in plan.choices.values() if matches(choice))
    assert found.class_key == key.class_key
    assert (found.source, found.record_id) == ("resnet18", "abc123")
    assert found.difference.largest > 1e-4


def test_a_wrong_kernel_gets_another_schedule(prepared: Prepared, tmp_path: Path) -> None:
    model, plan, device = prepared
    spoiled = _spoiled(plan, _is_second_layer, "T.max(", "T.min(")
    inspect = partial(inspect_draft, model, verified=True)
    write = partial(write_artifact, tmp_path / "out", model, device=device, inspect=inspect)
    said: list[str] = []
    with closing(LocalMeasurer(device)) as measurer:
        cured, manifest = with_right_kernels(spoiled, write, device, measurer, said.append)
    assert manifest.verified is not None
    assert manifest.verified.passed
    assert said == ["kernel conv2d_add_relu gives wrong numbers: it gets another schedule"]
    changed = [k for k, c in cured.choices.items() if c is not spoiled.choices[k]]
    assert [cured.choices[key].kernel.name for key in changed] == ["conv2d_add_relu"]
    assert cured.choices[changed[0]].checked
    assert cured.choices[changed[0]].source == ""


def test_what_stays_wrong_is_an_error(prepared: Prepared, tmp_path: Path) -> None:
    """The kernel is right, and called wrong all the same."""
    _, plan, device = prepared
    key = next(key for key, choice in plan.choices.items() if _is_second_layer(choice))
    tried: list[Plan] = []

    def write(attempt: Plan) -> tuple[Plan, Manifest]:
        tried.append(attempt)
        raise WrongKernelError("wrong", kernel="conv2d_add_relu", kernel_key=key)

    with closing(LocalMeasurer(device)) as measurer, pytest.raises(WrongKernelError):
        with_right_kernels(plan, write, device, measurer, lambda text: None)
    assert len(tried) == 2
    assert tried[0].choices[key].scheduled is not tried[1].choices[key].scheduled


def test_the_error_names_kernel_and_record(prepared: Prepared, tmp_path: Path) -> None:
    model, plan, device = prepared
    spoiled = _spoiled(plan, _is_second_layer, "T.max(", "T.min(")
    inspect = partial(inspect_draft, model, verified=True)
    with pytest.raises(VerificationError) as caught:
        write_artifact(tmp_path / "out", model, spoiled, device, inspect=inspect)
    message = str(caught.value)
    assert "output 'y' on normal input" in message
    expected = "first diverging kernel: conv2d_add_relu #3 (schedule of resnet18, record abc123)"
    assert expected in message
    assert message.endswith("nothing was written; --no-verify lets it pass")
    assert "\n" not in message
    assert list(tmp_path.iterdir()) == []


def test_right_kernels_leave_the_graph_to_blame(prepared: Prepared, tmp_path: Path) -> None:
    write_artifact(tmp_path / "out", *prepared)
    model, _, device = prepared
    found = first_divergence(model, device, tmp_path / "out", random_feed(model.inputs))
    assert found.kernel == ""
    assert (found.calls, found.unknown) == (7 - 1, 0)  # the reshape is not called
    assert "the graph is at fault" in str(found)


def test_the_node_is_named_from_which_on_a_graph_is_wrong(tmp_path: Path) -> None:
    device = detect_device()
    mutant = load_model(write_conv_mutant(tmp_path / "mutant.onnx", "padding counted"), device)
    # As if the right file had been read and become the mutant's graph.
    model = replace(mutant, reference=write_conv_mutant(tmp_path / "right.onnx"))
    write_artifact(tmp_path / "out", mutant, default_plan(mutant, device), device)
    found = first_divergence(model, device, tmp_path / "out", random_feed(model.inputs))
    assert found.kernel == ""
    assert found.node == "'averagepool6' (AveragePool)"
    assert str(found).endswith(f"the graph is at fault from ONNX node {found.node} on")
    # Against its own file all is accounted for.
    found = first_divergence(mutant, device, tmp_path / "out", random_feed(model.inputs))
    assert found.node == ""
