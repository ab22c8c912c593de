"""End to end: a small network compiled, run, benched; and the public surface."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import tunebank
from networks import write_dense_network
from small_nets import INPUT_SHAPE, write_conv_net
from tunebank import api
from tunebank.bank import SqlBank
from tunebank.errors import MeasurementError, UsageError, VerificationError
from tunebank.measure import LocalMeasurer, Measurement

COMPILE_KEYS = {
    "search_seconds",
    "prepare_seconds",
    "build_seconds",
    "total_seconds",
    "latency_ms",
    "verified",
    "kernels",
    "front_half",
    "functions",
}
KERNEL_KEYS = {
    "name",
    "class",
    "weight",
    "gflop",
    "match",
    "source",
    "untuned_us",
    "latency_us",
    "candidates",
    "measured",
    "invalid",
    "given_up",
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_conv_net(tmp_path / "net.onnx")


@pytest.fixture
def bank(tmp_path: Path) -> list[str]:
    return [str(tmp_path / "bank.db")]


def _agrees(model: Path, artifact: Path) -> bool:
    x = np.random.default_rng(3).standard_normal(INPUT_SHAPE).astype("float32")
    reference = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    (expected,) = reference.run(None, {"x": x})
    (actual,) = tunebank.load(artifact).run(None, {"x": x})
    return bool(np.abs(actual - expected).max() < 1e-4 * np.abs(expected).max())


def test_public_surface_is_pinned() -> None:
    assert tunebank.__all__ == [
        "Session",
        "__version__",
        "bench_artifact",
        "compile_model",
        "load",
        "plan_model",
        "profile_artifact",
        "tune_model",
    ]
    assert all(hasattr(tunebank, name) for name in tunebank.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = tunebank.nonsense


@pytest.mark.parametrize("module", ["tunebank", "tunebank.runtime.manifest"])
def test_import_does_without_tvm(module: str) -> None:
    code = f"import sys, {module}; print('tvm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_compile_without_measuring(model: Path, bank: list[str], tmp_path: Path) -> None:
    result = api.compile_model(model, tmp_path / "out", banks=bank, time_budget_seconds=0)
    data = json.loads(json.dumps(result.to_json()))
    assert set(data) == COMPILE_KEYS
    assert all(set(kernel) == KERNEL_KEYS for kernel in data["kernels"])
    assert data["verified"]["passed"] is True
    assert 0 < data["latency_ms"]["median"] <= data["latency_ms"]["p90"]
    assert {kernel["measured"] for kernel in data["kernels"]} == {0}
    stages = data["prepare_seconds"] + data["search_seconds"] + data["build_seconds"]
    assert stages == pytest.approx(data["total_seconds"])
    assert _agrees(model, tmp_path / "out")


def test_compile_measures_plans_and_deposits(model: Path, bank: list[str], tmp_path: Path) -> None:
    result = api.compile_model(model, tmp_path / "out", banks=bank, time_budget_seconds=4)
    assert result.plan.measured > 0
    heaviest = result.to_json()["kernels"][0]
    assert heaviest["latency_us"] <= heaviest["untuned_us"]
    assert _agrees(model, tmp_path / "out")
    # What was measured are donors now, unless they are hidden.
    planned = api.plan_model(model, banks=bank).to_json()
    assert "exact" in {kernel["match"] for kernel in planned["kernels"]}
    hidden = api.plan_model(model, banks=bank, exclude_sources=["net"]).to_json()
    assert {kernel["source"] for kernel in hidden["kernels"]}.isdisjoint({"net"})


def test_bench_against_three(model: Path, bank: list[str], tmp_path: Path) -> None:
    api.compile_model(model, tmp_path / "out", banks=bank, time_budget_seconds=0, verify=False)
    names = ["onnxruntime", "untuned", str(tmp_path / "out"), str(model)]
    result = api.bench_artifact(tmp_path / "out", against=names, rounds=2, min_seconds=0.05)
    data = result.to_json()
    assert list(data["against"]) == names
    for entry in data["against"].values():
        assert entry["latency_ms"]["median"] > 0
        assert entry["speedup_low"] <= entry["speedup"] <= entry["speedup_high"]


def test_bench_against_nonsense(model: Path, bank: list[str], tmp_path: Path) -> None:
    api.compile_model(model, tmp_path / "out", banks=bank, time_budget_seconds=0, verify=False)
    with pytest.raises(UsageError, match="nothing to compare with"):
        api.bench_artifact(tmp_path / "out", against=["gpu"])
    model.unlink()
    with pytest.raises(UsageError, match="compiled from is gone"):
        api.bench_artifact(tmp_path / "out")


def test_wrong_kernel_is_caught_and_nothing_written(
    model: Path, bank: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunebank.measure.packing import BlockPacking

    pack = BlockPacking.apply
    monkeypatch.setattr(BlockPacking, "apply", lambda self, weight: 1.1 * pack(self, weight))
    with pytest.raises(VerificationError, match="differs from ONNX Runtime") as caught:
        api.compile_model(model, tmp_path / "out", banks=bank, time_budget_seconds=0)
    assert "\n" not in str(caught.value)
    assert {p.name for p in tmp_path.iterdir()} == {"net.onnx", "bank.db"}


def test_constant_model_is_not_called_verified(bank: list[str], tmp_path: Path) -> None:
    model = write_conv_net(tmp_path / "net.onnx", constant_weights=True)
    said: list[Any] = []
    result = api.compile_model(
        model, tmp_path / "out", banks=bank, time_budget_seconds=0, report=said.append
    )
    assert result.to_json()["verified"]["passed"] is None
    assert any("inconclusive" in line for line in said if isinstance(line, str))


def test_no_measurement_succeeds(
    model: Path, bank: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(
        self: LocalMeasurer, candidates: Sequence[Any], *, best_us: dict[str, float]
    ) -> list[Measurement]:
        return [Measurement("crashed", error="worker died") for _ in candidates]

    monkeypatch.setattr(LocalMeasurer, "measure", crash)
    with pytest.raises(MeasurementError, match="nothing could be measured"):
        api.compile_model(model, tmp_path / "out", banks=bank, time_budget_seconds=4)
    assert not (tmp_path / "out").exists()


def test_interrupted_search_is_built(
    model: Path, bank: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: LocalMeasurer, *_: object, **__: object) -> list[Measurement]:
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalMeasurer, "measure", interrupt)
    result = api.compile_model(model, tmp_path / "out", banks=bank, time_budget_seconds=30)
    assert result.plan.interrupted
    assert _agrees(model, tmp_path / "out")


def test_output_is_checked_before_the_model(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="can't be written"):
        api.compile_model(tmp_path / "missing.onnx", tmp_path / "file" / "out")


def test_target_that_this_machine_lacks(
    model: Path, bank: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunebank.device.device.cpu_flags", lambda: frozenset({"sse2"}))
    with pytest.raises(UsageError, match="which this machine lacks"):
        api.compile_model(model, tmp_path / "out", banks=bank)
    result = api.compile_model(
        model, tmp_path / "out", banks=bank, time_budget_seconds=0, verify=False
    )
    assert result.latency_ms is None


def test_tune_fills_the_bank(bank: list[str], tmp_path: Path) -> None:
    model = write_dense_network(tmp_path / "dense.onnx", repeated=1)
    result = api.tune_model(model, banks=bank, trials_per_kernel=2, source="mine")
    assert result.measured > 0
    records = list(SqlBank(bank[0]).find(status=None))
    assert {record.source for record in records} == {"mine"}
    trials = [record for record in records if record.origin == "tune"]
    assert len(trials) == result.measured
    # Two trials seldom beat a default schedule: a bank of those that had done so.
    kept = [trial for trial in trials if trial.status == "ok"]
    lucky = [replace(trial, latency_us=1.0, samples_us=(1.0,)) for trial in kept]
    slower = [
        replace(record, latency_us=9.0, samples_us=(9.0,))
        for record in records
        if record.origin == "default"
    ]
    other = str(tmp_path / "lucky.db")
    SqlBank(other).deposit([*lucky, *slower])
    kernels = api.plan_model(model, banks=[other]).to_json()["kernels"]
    chosen = {kernel["symbol"] for kernel in kernels if kernel["source"] == "mine"}
    assert chosen == {f"{trial.kernel_name}_{trial.kernel_key}" for trial in kept}
