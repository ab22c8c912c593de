"""Weights of a model for several sets of input shapes: packed once, stored once."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from tvm import ir, relax

from tunebank.api import compile_model, default_plan
from tunebank.bank import SqlBank
from tunebank.build import write_artifact
from tunebank.build.place import placed_module
from tunebank.device import Device, detect_device
from tunebank.measure.fake import FakeMeasurer
from tunebank.model import Model, load_model, main_functions
from tunebank.schedule import Scheduled, Space, default_traces
from tunebank.search import Choice, Plan, ReuseSettings, reuse
from tunebank.search.sharing import packing_at, weight_groups

WIDTH = 400
WEIGHT_BYTES = (2 * WIDTH * WIDTH + WIDTH * 100) * 4
LARGEST_GROWTH = 1.02


def write_dense_net(path: Path) -> Path:
    """Two equal dense layers and a narrower one; the number of rows is open."""
    rng = np.random.default_rng(3)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        values = rng.standard_normal(shape) * (2.0 / WIDTH) ** 0.5
        return numpy_helper.from_array(values.astype(np.float32), name)

    weights = [weight("w0", WIDTH, WIDTH), weight("w1", WIDTH, WIDTH), weight("w2", WIDTH, 100)]
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["m0"]),
        helper.make_node("Relu", ["m0"], ["r0"]),
        helper.make_node("MatMul", ["r0", "w1"], ["m1"]),
        helper.make_node("Relu", ["m1"], ["r1"]),
        helper.make_node("MatMul", ["r1", "w2"], ["y"]),
    ]
    values = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", width])
        for name, width in (("x", WIDTH), ("y", 100))
    ]
    graph = helper.make_graph(nodes, "dense", values[:1], values[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return path


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dense_net(tmp_path_factory.mktemp("net") / "dense.onnx")


@pytest.fixture(scope="module")
def here() -> Device:
    return detect_device(threads=1)


@pytest.fixture(scope="module")
def model(net: Path, here: Device) -> Model:
    return load_model(net, here, dims={"N": [1, 4]})


@pytest.fixture(scope="module")
def size_of_one(net: Path, here: Device, tmp_path_factory: pytest.TempPathFactory) -> int:
    """Bytes of the program for one number of rows."""
    alone = load_model(net, here, dims={"N": [1]})
    return program_bytes(alone, default_plan(alone, here), here, tmp_path_factory.mktemp("one"))


def program_bytes(model: Model, plan: Plan, device: Device, folder: Path) -> int:
    _, manifest = write_artifact(folder / "out", model, plan, device)
    return manifest.program.size_bytes


def constants(module: ir.IRModule) -> list[list[Any]]:
    """The constants that each function's calls take, in order."""
    found: list[list[Any]] = []
    for var in main_functions(module):
        own: list[Any] = []

        def visit(expr: Any, own: list[Any] = own) -> None:
            if isinstance(expr, ir.Call) and getattr(expr.op, "name", "") == "relax.call_tir":
                own.extend(arg for arg in expr.args[1].fields if hasattr(arg, "value"))

        relax.analysis.post_order_visit(module[var], visit)
        found.append(own)
    return found


def shared_packings(model: Model, plan: Plan) -> list[set[str]]:
    """By group of kernels the packings under the plan."""
    found = []
    for group in weight_groups(model):
        scheduled = {key: plan.choices[key].scheduled for key in group.positions}
        found.append(
            {
                packing_at(one.module, group.positions[key])
                for key, one in scheduled.items()
                if one is not None
            }
        )
    return found


def wavering_latency_us(candidate: Scheduled) -> float:
    """From 100 to 107 µs: each kernel likes a packing of its own a little better."""
    text = f"{candidate.kernel.key} {packing_at(candidate.module, 1)}"
    return 100.0 + hashlib.sha256(text.encode()).digest()[0] % 8


def test_functions_share_the_packed_constants(model: Model, here: Device) -> None:
    plan = default_plan(model, here)
    assert [len(packings) for packings in shared_packings(model, plan)] == [1, 1]
    one, other = constants(placed_module(model, plan))
    assert len(one) == len(other) == 3
    assert all(a.same_as(b) for a, b in zip(one, other, strict=True))
    before, _ = constants(model.module)
    packed = [not a.same_as(b) for a, b in zip(before, one, strict=True)]
    assert any(packed), "nothing is packed: shows nothing"


def test_other_packings_are_other_constants(model: Model, here: Device) -> None:
    plan = default_plan(model, here)
    key = next(iter(weight_groups(model)[0].positions))
    choice = plan.choices[key]
    space = Space(choice.kernel, here)
    scheduled = [space.apply(trace) for trace in default_traces(space)]
    others = [one for one in scheduled if packing_at(one.module, 1) != _packing(choice)]
    changed = replace(choice, scheduled=others[0])
    plan = replace(plan, choices={**plan.choices, key: changed})
    assert max(len(packings) for packings in shared_packings(model, plan)) == 2
    one, other = constants(placed_module(model, plan))
    assert any(not a.same_as(b) for a, b in zip(one, other, strict=True))


def _packing(choice: Choice) -> str:
    assert choice.scheduled is not None
    return packing_at(choice.scheduled.module, 1)


def test_unmeasured_two_sets_of_shapes_take_the_room_of_one(
    model: Model, here: Device, size_of_one: int, tmp_path: Path
) -> None:
    size = program_bytes(model, default_plan(model, here), here, tmp_path)
    assert size_of_one >= WEIGHT_BYTES
    assert size < LARGEST_GROWTH * size_of_one


def test_measured_two_sets_of_shapes_take_the_room_of_one(
    model: Model, here: Device, size_of_one: int, tmp_path: Path
) -> None:
    settings = ReuseSettings(budget_seconds=4.0)
    fake = FakeMeasurer(wavering_latency_us)
    plan = reuse(model, SqlBank("sqlite://"), here, fake, settings)
    for group in weight_groups(model):
        assert all(plan.choices[key].latency_us is not None for key in group.positions)
    size = program_bytes(model, plan, here, tmp_path)
    assert size < LARGEST_GROWTH * size_of_one


def test_really_measured_it_is_right_and_holds_each_packing_once(
    net: Path, model: Model, tmp_path: Path
) -> None:
    result = compile_model(
        net,
        tmp_path / "out",
        banks=[str(tmp_path / "bank.db")],
        threads=1,
        time_budget_seconds=4.0,
        dims={"N": [1, 4]},
    )
    assert result.manifest.verified is not None
    assert result.manifest.verified.passed
    # How fast the kernels are on this machine today decides whether they agree.
    wanted = sum(
        len(packings) * group.weight_bytes
        for group, packings in zip(
            weight_groups(model), shared_packings(model, result.plan), strict=True
        )
    )
    assert wanted >= WEIGHT_BYTES
    assert wanted <= result.manifest.program.size_bytes < LARGEST_GROWTH * wanted
