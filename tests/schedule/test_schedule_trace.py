"""Canonical traces: there and back, on kernels whose blocks have other names."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tvm import ir, s_tir
from tvm.s_tir.schedule import Trace as TvmTrace

from programs import conv2d, kernel, matmul, softmax
from tunebank.device import Device
from tunebank.schedule import Space, Trace, canonical_trace, tile_roles

PROGRAMS: dict[str, Callable[..., Any]] = {
    "conv2d": lambda **k: conv2d(epilogue=["bias", "relu"], **k),
    "matmul": lambda **k: matmul(epilogue=["tanh"], **k),
    "softmax": softmax,
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_there_and_back_under_other_names(name: str, device: Device) -> None:
    plain, renamed = kernel(PROGRAMS[name]()), kernel(PROGRAMS[name](names="other_"))
    assert set(plain.blocks) & set(renamed.blocks) == {"root"}
    for sketch in Space(plain, device).context.generate_design_space():
        original = json.loads(_dumped(sketch.trace))
        trace = Trace.from_json(sketch.trace.as_json(), plain.blocks)
        assert json.loads(json.dumps(trace.to_json(plain.blocks))) == original
        assert "other_" not in trace.text
        first = replayed(trace, plain)
        second = replayed(trace, renamed)
        assert kernel(second["main"]).key == kernel(first["main"]).key
        assert kernel(first["main"]).key == kernel(sketch.mod["main"]).key


def _dumped(trace: TvmTrace) -> str:
    """TVM's trace as JSON text, its own numbers and arrays made plain."""

    def plain(value: Any) -> Any:
        if value is None or isinstance(value, bool | int | float | str):
            return value
        return [plain(part) for part in value] if hasattr(value, "__iter__") else value.value

    return json.dumps(plain(trace.as_json()))


def replayed(trace: Trace, onto: Any) -> ir.IRModule:
    schedule = s_tir.Schedule(onto.module)
    TvmTrace.apply_json_to_schedule(trace.to_json(onto.blocks), schedule)
    return schedule.mod


def test_the_text_is_the_trace(device: Device) -> None:
    for sketch in Space(kernel(conv2d()), device).sketches:
        assert Trace.from_text(sketch.text) == sketch
        assert Trace.from_text(sketch.text).text == sketch.text
        assert Trace.from_text(json.dumps(json.loads(sketch.text), indent=1)).text == sketch.text


def test_post_processing_is_left_out(device: Device) -> None:
    space = Space(kernel(matmul()), device)
    scheduled = space.apply(space.sketches[0])
    kinds = [step[0] for step in json.loads(_dumped(scheduled.schedule.trace))[0]]
    assert "EnterPostproc" in kinds
    assert scheduled.trace.structure == tuple(kinds[: kinds.index("EnterPostproc")])
    assert max(scheduled.trace.decisions) < len(scheduled.trace.instructions)


def test_decisions_are_replaced_and_the_old_trace_stays(device: Device) -> None:
    sketch = Space(kernel(matmul()), device).sketches[0]
    index = min(sketch.decisions)
    before = sketch.text
    changed = sketch.with_decisions({index: [16, 1, 1, 1]})
    assert changed.decisions[index] == [16, 1, 1, 1]
    assert {k: v for k, v in changed.decisions.items() if k != index} == {
        k: v for k, v in sketch.decisions.items() if k != index
    }
    assert changed.structure == sketch.structure
    assert sketch.text == before
    assert changed.text != before


def test_a_structure_is_a_sketch_whatever_was_decided(device: Device) -> None:
    space = Space(kernel(conv2d(epilogue=["bias", "relu"])), device)
    assert len({sketch.instructions for sketch in space.sketches}) == len(space.sketches) >= 2
    assert len({sketch.structure for sketch in space.sketches}) >= 2
    for sketch in space.sketches:
        assert space.apply(sketch).trace.structure == sketch.structure


def test_sketches_are_the_same_every_time(device: Device) -> None:
    one, two = (Space(kernel(conv2d()), device).sketches for _ in range(2))
    assert one == two


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=12,
)


@given(json_values)
def test_what_is_no_trace(value: Any) -> None:
    """A value either is a trace, which survives its text, or `ValueError` is raised."""
    try:
        trace = Trace.from_json(value, ["root"])
    except ValueError:
        return
    assert Trace.from_text(trace.text).text == trace.text


@pytest.mark.parametrize(
    "text", ["", "{", "5", "null", "[]", "[[1],[]]", '[[["a"]],[]]', "[[],[5]]"]
)
def test_texts_that_are_no_trace(text: str) -> None:
    with pytest.raises(ValueError, match=r"trace|Expecting"):
        Trace.from_text(text)


def test_roles_name_the_loops_of_the_anchor(device: Device) -> None:
    target = kernel(conv2d(size=8, cin=6, cout=10, epilogue=["relu"]))
    for sketch in Space(target, device).sketches:
        roles = tile_roles(sketch, target.loop_extents)
        tiled = {role.loops[0]: role for role in roles.values() if role.block == target.anchor}
        assert {loop: role.extent for loop, role in tiled.items()} == dict(
            enumerate((1, 8, 8, 10, 3, 3, 6))
        )
        assert [tiled[loop].levels for loop in range(7)] == [4, 4, 4, 4, 2, 2, 2]
        assert all(role.innermost_limit >= 1 for role in tiled.values())


def test_roles_heed_the_block_they_are_of() -> None:
    steps = [
        ["GetSBlock", [], ["#2", "main"], ["b0"]],
        ["GetLoops", ["b0"], [], ["l1", "l2"]],
        ["Fuse", ["l1", "l2"], [1], ["l3"]],
        ["SamplePerfectTile", ["l3"], [2, 64], ["v4", "v5"]],
        ["SamplePerfectTile", ["l9"], [2, 64], ["v6", "v7"]],
    ]
    trace = Trace.from_text(json.dumps([steps, [[3, [7, 4]]]]))
    (role,) = tile_roles(trace, {2: (4, 7)}).values()
    assert (role.block, role.loops, role.extent, role.levels, role.innermost_limit) == (
        2,
        (0, 1),
        28,
        2,
        64,
    )
    assert tile_roles(trace, {2: (4, 7, 9)}) == {}, "loops that some step has made"
    assert tile_roles(trace, {1: (4, 7)}) == {}


def test_canonical_trace_names_blocks_by_position() -> None:
    steps = [["GetSBlock", [], ["T_add_1", "main"], ["b0"]]]
    assert json.loads(canonical_trace([steps, []], ["root", "conv", "T_add_1"])) == [
        [["GetSBlock", [], ["#2", "main"], ["b0"]]],
        [],
    ]
