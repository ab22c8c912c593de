"""Artifacts: packed weights, written whole or not at all, never over something else."""

from __future__ import annotations

from pathlib import Path

import pytest
from tvm import tirx
from tvm.s_tir import SBlock

from small_nets import write_conv_net
from tunebank.api import default_plan
from tunebank.build import check_compiler, check_output, verify, write_artifact
from tunebank.build.place import placed_module
from tunebank.device import Device, detect_device
from tunebank.errors import UsageError
from tunebank.kernel import block_sites
from tunebank.model import Model, load_model
from tunebank.runtime import Manifest, Session, is_artifact
from tunebank.search import Plan

Prepared = tuple[Model, Plan, Device]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    device = detect_device()
    path = write_conv_net(tmp_path_factory.mktemp("net") / "net.onnx")
    model = load_model(path, device)
    return model, default_plan(model, device), device


def _packing_blocks(func: tirx.PrimFunc) -> list[SBlock]:
    """The blocks that pack a weight and were not emptied."""
    blocks = [site.block for site in block_sites(func)]
    marked = [b for b in blocks if "meta_schedule.layout_rewrite_preproc" in b.annotations]
    return [block for block in marked if len(block.writes) > 0]


def test_weights_are_packed_ahead_and_programs_shared(prepared: Prepared) -> None:
    model, plan, _ = prepared
    scheduled = [c.scheduled.module["main"] for c in plan.choices.values() if c.scheduled]
    assert any(_packing_blocks(func) for func in scheduled), "no schedule packs: shows nothing"
    module = placed_module(model, plan)
    programs = [f for _, f in module.functions_items() if isinstance(f, tirx.PrimFunc)]
    assert not any(_packing_blocks(program) for program in programs)
    # Two layers are one kernel, and so one program.
    assert len(programs) == len(model.kernels)
    assert max(kernel.weight for kernel in model.kernels) > 1


def test_written_artifact_agrees_with_the_reference(prepared: Prepared, tmp_path: Path) -> None:
    model, plan, device = prepared
    _, manifest = write_artifact(tmp_path / "out", model, plan, device)
    session = Session(tmp_path / "out")
    assert session.manifest == manifest
    outcome = verify(lambda feed: session.run(None, feed), model.path, model.inputs, threads=1)
    assert outcome.passed
    assert outcome.conclusive
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


def test_failed_inspection_leaves_nothing(prepared: Prepared, tmp_path: Path) -> None:
    def refuse(folder: Path, manifest: Manifest) -> Manifest:
        assert is_artifact(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_artifact(tmp_path / "out", *prepared, inspect=refuse)
    assert list(tmp_path.iterdir()) == []


def test_failure_keeps_the_artifact_that_is_there(prepared: Prepared, tmp_path: Path) -> None:
    _, before = write_artifact(tmp_path / "out", *prepared)

    def refuse(folder: Path, manifest: Manifest) -> Manifest:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        write_artifact(tmp_path / "out", *prepared, inspect=refuse)
    assert Session(tmp_path / "out").manifest == before
    _, after = write_artifact(tmp_path / "out", *prepared, budget_seconds=1.0)
    assert Session(tmp_path / "out").manifest == after != before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(UsageError, match="is a folder but no artifact"):
        check_output(tmp_path / "photos")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="is a file"):
        check_output(tmp_path / "file")


@pytest.mark.parametrize("place", ["file/out", "file/deeper/out"])
def test_place_that_takes_no_folder(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="can't be written") as caught:
        check_output(tmp_path / place)
    assert "\n" not in str(caught.value)


def test_output_check_leaves_nothing(tmp_path: Path) -> None:
    check_output(tmp_path / "a" / "b" / "out")
    assert list(tmp_path.iterdir()) == []


def test_missing_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UsageError, match="no C compiler"):
        check_compiler()
