"""The grammar of traces: what real schedules say passes, all else is refused before TVM."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from programs import conv2d, depthwise_conv2d, elementwise, kernel, matmul, pool, softmax
from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.schedule import IllegalScheduleError, Space, Trace
from tunebank.schedule.grammar import GrammarError, check_trace

ROOM = Path(__file__).parent
LOGS = ROOM.parent / "assets" / "metaschedule_resnet18" / "database_tuning_record.json.gz"

PROGRAMS: dict[str, Callable[[], Any]] = {
    "conv": conv2d,
    "conv with epilogue": lambda: conv2d(epilogue=["bias", "relu"]),
    "depthwise": depthwise_conv2d,
    "matmul": matmul,
    "softmax": softmax,
    "pool": pool,
    "elementwise": elementwise,
}

STEPS: list[Any] = [
    ["GetSBlock", [], ["#1", "main"], ["b0"]],
    ["GetLoops", ["b0"], [], ["l1", "l2", "l3"]],
    ["SamplePerfectTile", ["l1"], [2, 64], ["v4", "v5"]],
    ["Split", ["l1", "v4", "v5"], [1, 1], ["l6", "l7"]],
    ["SampleCategorical", [], [[0, 16], [0.5, 0.5]], ["v8"]],
    ["Annotate", ["b0", "v8"], ["meta_schedule.unroll_explicit"], []],
    ["SampleComputeLocation", ["b0"], [], ["l9"]],
]
DECISIONS: list[Any] = [[2, [4, 4]], [4, 1], [6, -1]]


@pytest.fixture(scope="module")
def target() -> Kernel:
    return kernel(matmul())


def text_of(steps: list[Any], decisions: list[Any]) -> str:
    return json.dumps([steps, decisions])


def with_step(index: int, part: int, value: Any) -> str:
    steps = json.loads(json.dumps(STEPS))
    steps[index][part] = value
    return text_of(steps, DECISIONS)


def with_decision(index: int, value: Any) -> str:
    others = [pair for pair in DECISIONS if pair[0] != index]
    return text_of(STEPS, [*others, [index, value]])


def test_the_example_is_good() -> None:
    check_trace(Trace.from_text(text_of(STEPS, DECISIONS)))


def test_real_logs_are_good() -> None:
    lines = gzip.decompress(LOGS.read_bytes()).decode().splitlines()
    traces = [Trace.from_json(json.loads(line)[1][0], []) for line in lines]
    assert len(traces) == 28
    for trace in traces:
        check_trace(trace)


@pytest.mark.parametrize(
    "program",
    [
        conv2d(epilogue=["bias", "relu"]),
        depthwise_conv2d(),
        matmul(),
        softmax(),
        pool(),
        elementwise(),
    ],
    ids=lambda program: "",
)
def test_sketches_are_good(program: Any, device: Device) -> None:
    space = Space(kernel(program), device)
    for sketch in space.sketches:
        check_trace(sketch)


WRONG = {
    "factor of zero": with_decision(2, [16, 0]),
    "negative factor": with_decision(2, [-4, -4]),
    "fraction as factor": with_decision(2, [4.0, 4]),
    "flag as factor": with_decision(2, [16, True]),
    "nothing as factor": with_decision(2, [16, None]),
    "too few factors": with_decision(2, [16]),
    "a number for factors": with_decision(2, 16),
    "factors too large": with_decision(2, [1 << 62, 1 << 62]),
    "category out of range": with_decision(4, 2),
    "negative category": with_decision(4, -1),
    "list as category": with_decision(4, [1]),
    "list as location": with_decision(6, [1, 2]),
    "text as location": with_decision(6, "l1"),
    "no decision": text_of(STEPS, DECISIONS[1:]),
    "a decision too many": text_of(STEPS, [*DECISIONS, [3, 1]]),
    "unknown step": with_step(0, 0, "Tensorise"),
    "step that brings code": text_of([*STEPS, ["Tensorize", ["b0"], ["dot", 0], []]], DECISIONS),
    "annotation that brings code": with_step(5, 2, ["pragma_import_llvm"]),
    "annotation with a text": with_step(5, 1, ["b0", "source_filename = 1"]),
    "variable of no one": with_step(3, 1, ["l99", "v4", "v5"]),
    "variable of another sort": with_step(3, 1, ["b0", "v4", "v5"]),
    "variable read before it is written": with_step(1, 1, ["b10"]),
    "variable written twice": with_step(4, 3, ["v4"]),
    "variable of an odd name": with_step(4, 3, ["v4; x"]),
    "nothing for a loop": with_step(3, 1, [None, "v4", "v5"]),
    "factor of zero in a split": with_step(3, 1, ["l1", 0, 4]),
    "parts too few": with_step(3, 3, ["l6"]),
    "levels that are not made": with_step(2, 2, [4, 64]),
    "levels without number": with_step(2, 2, [None, 64]),
    "shares missing": with_step(4, 2, [[0, 16], [0.5]]),
    "no categories": with_step(4, 2, [[], []]),
    "block by number": with_step(0, 2, [1, "main"]),
    "another function": with_step(0, 2, ["#1", "other"]),
    "a loop twice": text_of([*STEPS, ["Reorder", ["l6", "l6"], [], []]], DECISIONS),
    "endless": text_of([["GetSBlock", [], ["#1", "main"], [f"b{i}"]] for i in range(10_001)], []),
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG.keys())
def test_what_a_trace_may_not_say(text: str, target: Kernel) -> None:
    with pytest.raises(GrammarError) as caught:
        check_trace(Trace.from_text(text))
    assert "\n" not in str(caught.value)


def test_a_space_asks_the_grammar_first(target: Kernel, device: Device) -> None:
    space = Space(target, device)
    for name in ("annotation that brings code", "unknown step", "no decision"):
        with pytest.raises(IllegalScheduleError):
            space.apply(Trace.from_text(WRONG[name]))


def test_what_the_grammar_can_not_know_tvm_refuses(target: Kernel, device: Device) -> None:
    space = Space(target, device)
    outside = [["GetSBlock", [], ["#7", "main"], ["b0"]]]
    not_its_loops = [*STEPS[:1], ["GetLoops", ["b0"], [], ["l1"]]]
    inlined = [*STEPS[:1], ["ComputeInline", ["b0"], [], []]]
    for steps in (outside, not_its_loops, inlined):
        check_trace(Trace.from_text(text_of(steps, [])))
        with pytest.raises(IllegalScheduleError) as caught:
            space.apply(Trace.from_text(text_of(steps, [])))
        assert "\n" not in str(caught.value)


def test_damaged_traces_never_end_the_process(tmp_path: Path) -> None:
    """In a process of its own: without the grammar it dies of a signal within some twenty."""
    trial, source = tmp_path / "trial.json", ROOM.parents[1] / "src"
    paths = os.pathsep.join([str(source), str(ROOM.parent)])
    result = subprocess.run(
        [sys.executable, str(ROOM / "fuzz_traces.py"), "7", "150", str(trial)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    last = trial.read_text() if trial.exists() else "none"
    assert result.returncode == 0, f"{result.stderr[-500:]} with {last}"
    legal, ungrammatical, refused = map(int, result.stdout.split())
    assert legal >= 10
    assert ungrammatical >= 10
    assert refused >= 3
