"""A cost model that is trained on a bank, kept in it, and puts schedules in order."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from programs import elementwise, kernel, matmul, model_of
from tunebank.bank import BankChain, Record, SqlBank, distil, shipped_banks
from tunebank.cli.main import cli
from tunebank.device import Device
from tunebank.errors import UsageError
from tunebank.kernel import Kernel
from tunebank.lab.withheld import Withheld
from tunebank.schedule import Space, Trace, default_traces, tile_roles
from tunebank.schedule.features import FEATURES, features
from tunebank.schedule.programs import is_own_program
from tunebank.search import ReuseSettings, reuse
from tunebank.transfer import Expectation, PretrainedModel, pretrained
from tunebank.transfer.pretrained import read
from tunebank.transfer.pretraining import is_behind, kernel_trials, learn, refresh

COLUMNS = FEATURES.index("tile_columns")


@pytest.fixture(scope="module")
def dense() -> Kernel:
    """A dense layer."""
    return kernel(matmul(m=48, n=64, k=96, epilogue=["bias"]))


@pytest.fixture(scope="module")
def tiled(dense: Kernel, device: Device) -> list[Trace]:
    """Its default schedule with other factors of the columns."""
    base = next(t for t in default_traces(Space(dense, device)) if not is_own_program(t))
    roles = tile_roles(base, dense.loop_extents)
    index = next(i for i, role in roles.items() if role.loops == (1,) and role.levels == 4)
    return [base.with_decisions({index: factors}) for factors in _factors(64, 4)]


def _factors(extent: int, levels: int) -> Iterator[list[int]]:
    sizes = [2**n for n in range(extent.bit_length())]
    for outer in itertools.product(sizes, repeat=levels - 1):
        if extent % math.prod(outer) == 0:
            yield [*outer, extent // math.prod(outer)]


def _record(
    traced: Kernel, trace: Trace, latency_us: float, device: Device, **changes: Any
) -> Record:
    about: dict[str, Any] = {
        "kernel_key": traced.key,
        "class_key": traced.class_key,
        "anchor_key": traced.anchor_key,
        "kernel_name": traced.name,
        "kernel_ir": traced.ir,
        "flops": traced.flops,
        "trace": trace.text,
        "status": "ok",
        "latency_us": latency_us,
        "samples_us": (latency_us,),
        "source": "theirs",
        "origin": "tune",
        "target": device.target,
        "device": device.fingerprint,
        "threads": device.threads,
        "tvm_version": "0",
        "created_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    return Record(**(about | changes))


def _width(trace: Trace, traced: Kernel, device: Device) -> float:
    """Columns of the register tile, as a logarithm."""
    return float(features([trace], traced, device)[0, COLUMNS])


def _bank(
    traced: Kernel, traces: list[Trace], device: Device, latency: Callable[[float], float]
) -> SqlBank:
    """A bank of all the schedules; their latency follows from the columns of the register tile."""
    bank = SqlBank("sqlite://")
    bank.deposit(
        _record(traced, trace, latency(_width(trace, traced, device)), device) for trace in traces
    )
    return bank


def test_features_tell_schedules_apart(dense: Kernel, tiled: list[Trace], device: Device) -> None:
    rows = features(tiled, dense, device)
    assert rows.shape == (len(tiled), len(FEATURES))
    assert len(np.unique(rows, axis=0)) > len(tiled) / 2
    assert np.isfinite(rows[:, : FEATURES.index("threads") + 1]).all()
    assert set(rows[:, COLUMNS]) == set(range(7)), "1 to 64 columns"
    (bare,) = features([Trace(tiled[0].instructions, {})], dense, device)
    assert math.isnan(bare[COLUMNS]), "a schedule without decisions has no tile"
    assert features([], dense, device).shape == (0, len(FEATURES))


def _model(**changes: Any) -> dict[str, Any]:
    """One tree: below 3 in the tile's columns 1 octave, else 0; where there is no tile 5."""
    tree = {
        "left": [1, 3, -1, -1, -1],
        "right": [2, 4, -1, -1, -1],
        "feature": [COLUMNS, COLUMNS, 0, 0, 0],
        "value": [3.0, -9.0, 0.0, 5.0, 1.0],
        "missing_left": [True, True, False, False, False],
    }
    general = {
        "trials": {"cpu": 9},
        "sources": ["theirs"],
        "trees": [tree | changes.pop("tree", {})],
    }
    return {"base": 0.25, "general": general, "features": list(FEATURES)} | changes


def _chain(depth: int) -> dict[str, Any]:
    """The columns of a tree of one path; that of a stranger who wants it to take forever."""
    children = [*range(1, depth), -1]
    zeros = [0] * depth
    return {
        "left": children,
        "right": children,
        "feature": zeros,
        "value": zeros,
        "missing_left": [False] * depth,
    }


def test_a_tree_is_walked_as_it_says() -> None:
    model = read(json.dumps(_model()))
    assert model is not None
    rows = np.zeros((4, len(FEATURES)), np.float32)
    rows[:, COLUMNS] = (2.0, 3.0, 4.0, math.nan)
    assert model.octaves(rows).tolist() == [1.25, 0.25, 0.25, 5.25]
    assert model.octaves(rows[:0]).tolist() == []
    chain = read(json.dumps(_model(tree=_chain(500))))
    assert chain is not None
    assert chain.octaves(rows).tolist() == [0.25] * 4


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[" * 100_000,
        json.dumps(_model(features=["others"])),
        json.dumps(_model(version=2)),
        json.dumps(_model(base=math.inf)),
        json.dumps(_model(code="exit()")),
        json.dumps(_model(tree={"left": [0, 3, -1, -1, -1]})),  # a circle
        json.dumps(_model(tree={"left": [1, 9, -1, -1, -1]})),
        json.dumps(_model(tree={"right": [2, -1, -1, -1, -1]})),  # half a branch
        json.dumps(_model(tree={"feature": [len(FEATURES), 0, 0, 0, 0]})),
        json.dumps(_model(tree={"feature": [-1, 0, 0, 0, 0]})),
        json.dumps(_model(tree={"value": [0.0]})),
        json.dumps(_model(tree=_chain(5000))),
    ],
)
def test_what_is_no_model_counts_as_none(text: str) -> None:
    assert read(text) is None
    bank = SqlBank("sqlite://")
    bank.set_cost_model(text)
    assert pretrained(bank) is None


def test_the_first_of_a_chain_that_may_be_used() -> None:
    damaged, first, second, without = (SqlBank("sqlite://") for _ in range(4))
    damaged.set_cost_model("{")
    first.set_cost_model(json.dumps(_model(base=1.0)))
    general = _model()["general"] | {"sources": ["others"]}
    second.set_cost_model(json.dumps(_model(base=2.0, general=general)))
    chain = BankChain([damaged, without, first, second])

    def base(*hidden: str) -> float | None:
        model = pretrained(chain, exclude_sources=hidden)
        return None if model is None else model.base

    assert base() == 1.0
    assert base("theirs") == 2.0, "the first has seen what is hidden"
    assert base("theirs", "others") is None


def test_an_experiment_sees_no_model_of_the_bank() -> None:
    bank = SqlBank("sqlite://")
    bank.set_cost_model(json.dumps(_model()))
    assert pretrained(Withheld(bank, ["mine"])) is None, "it may have seen anything"
    given = Withheld(bank, ["mine"], cost_model=json.dumps(_model(base=7.0)))
    given.set_cost_model("lost")
    model = pretrained(given)
    assert model is not None
    assert model.base == 7.0


def test_what_is_learnt_is_what_was_measured(
    dense: Kernel, tiled: list[Trace], device: Device
) -> None:
    bank = _bank(dense, tiled, device, lambda width: 10.0 * 2.0 ** abs(width - 2))
    (trials,) = kernel_trials(bank.find())
    assert trials.sources == {"theirs"}
    assert not (np.diff(trials.octaves) >= 0).all(), "not in the order of the latencies"
    model = learn([trials], threads=1)
    learnt = read(model.model_dump_json())
    assert learnt == model, "it survives being written"
    assert learnt is not None
    assert learnt.trials == {device.fingerprint: len(trials.octaves)}
    error = learnt.octaves(trials.features) - np.minimum(trials.octaves, 3.0)
    assert np.abs(error).mean() < 0.15 * trials.octaves.mean()


def test_trials_that_can_t_be_read_are_left_out(
    dense: Kernel, tiled: list[Trace], device: Device
) -> None:
    good = [_record(dense, trace, 5.0, device) for trace in tiled[:8]]
    flaws: list[dict[str, Any]] = [{"kernel_ir": "{}"}, {"target": "{"}, {"trace": "[[], 1]"}]
    for flaw in flaws:
        bad = [replace(one, kernel_key="b", **flaw) for one in good]
        assert len(kernel_trials([*good, *bad])) == 1


def test_it_learns_again_when_a_fifth_is_new(
    dense: Kernel, tiled: list[Trace], device: Device
) -> None:
    bank = SqlBank("sqlite://")
    bank.set_cost_model(json.dumps(_model(base=0.0)))
    sources = ("a", "b", "c", "d")
    for source in sources:
        assert not is_behind(bank, device), "fewer than 256"
        bank.deposit(
            _record(dense, trace, 10.0 + 5 * _width(trace, dense, device), device, source=source)
            for trace in tiled
        )
    assert is_behind(bank, device)
    model = refresh(bank, device)
    assert model is not None
    assert model.general.trials == {"cpu": 9}, "what it knew stays"
    assert model.own is not None
    assert model.own.sources == sources
    assert pretrained(bank) == model
    assert not is_behind(bank, device)
    bank.deposit(_record(dense, trace, 9.0, device, source="e") for trace in tiled[:60])
    assert not is_behind(bank, device), "less than a fifth"
    bank.deposit(_record(dense, trace, 9.0, device, source="f") for trace in tiled[:60])
    assert is_behind(bank, device)
    again = refresh(bank, device)
    assert again is not None
    assert again.general == model.general, "the trees for this machine take the place of the former"


def test_a_bank_without_a_model_gets_one(dense: Kernel, tiled: list[Trace], device: Device) -> None:
    bank = _bank(dense, tiled, device, lambda width: 1.0 + width)
    assert refresh(bank, device) == pretrained(bank) is not None
    assert refresh(SqlBank("sqlite://"), device) is None


def test_schedules_are_expected_to_be_as_it_says(
    dense: Kernel, tiled: list[Trace], device: Device
) -> None:
    model = PretrainedModel.model_validate(_model())
    model = model.model_copy(update={"least": 0.25})
    expectation = Expectation(dense, device, model)
    for trace, octaves in zip(tiled, expectation.octaves(tiled), strict=True):
        assert octaves == (1.0 if _width(trace, dense, device) < 3 else 0.0)
    assert expectation.judges(tiled[0])
    assert not Expectation(dense, device).judges(tiled[0])
    assert not Expectation(kernel(elementwise()), device, model).judges(tiled[0])


@pytest.mark.parametrize("short", [True, False])
def test_unmeasured_the_choice_follows_it(dense: Kernel, device: Device, short: bool) -> None:
    """Among the kernel's own defaults that the model judges: by the steps that each has."""
    steps = FEATURES.index("steps")
    defaults = [t for t in default_traces(Space(dense, device)) if not is_own_program(t)]
    lengths = sorted({len(trace.instructions) for trace in defaults})
    assert len(lengths) > 1
    limit = (lengths[0] + lengths[-1]) / 2
    values = [limit, -9.0, float(short), 5.0, float(not short)]
    bank = SqlBank("sqlite://")
    bank.set_cost_model(
        json.dumps(_model(tree={"value": values, "feature": [steps, steps, 0, 0, 0]}))
    )
    plan = reuse(model_of(dense), bank, device, None, ReuseSettings(budget_seconds=0.0))
    (choice,) = plan.choices.values()
    assert choice.scheduled is not None
    assert choice.origin == "default"
    assert (len(choice.scheduled.trace.instructions) < limit) == short


def test_the_command(dense: Kernel, tiled: list[Trace], device: Device, tmp_path: Path) -> None:
    path, small, other = (str(tmp_path / name) for name in ("bank.db", "small.db", "other.db"))
    with SqlBank(path) as bank, SqlBank(other):
        bank.deposit(_record(dense, trace, 5.0 + n, device) for n, trace in enumerate(tiled))
    shown = CliRunner().invoke(cli, ["bank", "learn", "--bank", path, "--json"])
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.output)["trials"] == {device.fingerprint: len(tiled)}
    shown = CliRunner().invoke(cli, ["bank", "stats", "--bank", path])
    assert f"learnt_from: {device.fingerprint}" in shown.output
    shown = CliRunner().invoke(cli, ["bank", "learn", "--bank", path, "--into", other])
    assert f"learnt from {len(tiled)} trials of 1 kernels" in shown.output
    with SqlBank(path) as bank, SqlBank(other) as into:
        assert bank.cost_models() == into.cost_models()
        distil(bank, Path(small), keep=2)
    with SqlBank(small) as made:
        assert pretrained(made) is not None, "it goes with the distilled bank"
    empty = CliRunner().invoke(cli, ["bank", "learn", "--bank", small])
    assert isinstance(empty.exception, UsageError)
    assert "too few trials" in str(empty.exception)


def test_the_package_has_one() -> None:
    found = []
    for path in shipped_banks():
        with SqlBank(str(path), readonly=True) as bank:
            found.append(pretrained(bank))
    assert found
    for model in found:
        assert model is not None
        assert model.trials.total() > 1000
