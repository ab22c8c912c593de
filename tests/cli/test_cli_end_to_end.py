"""The commands one after another on a small network."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_models import conv_net

from tunebank.cli import main

Run = Callable[..., str]

KERNEL_KEYS = {
    "name", "class", "weight", "gflop", "match", "source", "untuned_us", "latency_us",
    "candidates", "measured", "invalid", "given_up",
}  # fmt: skip
COMPILE_KEYS = {
    "schema_version", "search_seconds", "prepare_seconds", "build_seconds", "total_seconds",
    "latency_ms", "verified", "kernels", "front_half", "functions",
}  # fmt: skip


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a command, which must succeed; returns its stdout."""
    monkeypatch.setenv("TUNEBANK_BANK", str(tmp_path / "default.db"))

    def call(*arguments: object) -> str:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        assert ended.value.code == 0, captured.err
        return captured.out

    return call


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    return conv_net(folder / "net.onnx")


@pytest.fixture(scope="module")
def artifact(folder: Path, model: Path) -> Path:
    """The network compiled without a search."""
    out, bank = folder / "net.tuned", folder / "bank.db"
    options = ["--bank", bank, "--time-budget", "0", "--threads", "1"]
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in ["-q", "compile", model, "-o", out, *options]])
    assert ended.value.code == 0
    return out


def parsed(text: str) -> dict[str, Any]:
    data = json.loads(text)
    assert data["schema_version"] == 1
    return dict(data)


def test_compile_prints_the_promised_keys(run: Run, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.tuned"
    more = ["--time-budget", "10s", "--threads", "1", "--json"]
    data = parsed(run("compile", model, "-o", out, *more))
    assert data.keys() == COMPILE_KEYS
    assert data["verified"]["passed"] is True
    assert data["latency_ms"].keys() == {"median", "p90"}
    assert all(kernel.keys() == KERNEL_KEYS for kernel in data["kernels"])
    assert all(kernel["latency_us"] > 0 for kernel in data["kernels"])
    deposited = parsed(run("bank", "stats", "--json"))["records"]
    assert deposited["ok"] >= len(data["kernels"])


def test_compile_prints_a_table(run: Run, model: Path, tmp_path: Path) -> None:
    text = run("compile", model, "-o", tmp_path / "out", "--time-budget", "0", "--threads", "1")
    assert text.startswith("kernel ")
    assert "conv2d" in text
    assert "verified: agrees with ONNX Runtime" in text


def test_plan_writes_nothing(run: Run, model: Path, tmp_path: Path) -> None:
    data = parsed(run("plan", model, "--threads", "1", "--json"))
    assert any("conv2d" in kernel["name"] for kernel in data["kernels"])
    assert data["suggested_seconds"] > 0
    assert run("plan", model, "--threads", "1").startswith("kernel ")
    assert list(tmp_path.iterdir()) == []


def test_tune_then_plan_finds_exact_donors(run: Run, model: Path) -> None:
    tuning = ["--trials-per-kernel", "1", "--threads", "1", "--source", "mine", "--json"]
    assert parsed(run("tune", model, *tuning))["measured"] > 0
    kernels = parsed(run("plan", model, "--threads", "1", "--json"))["kernels"]
    levels = {kernel["match"] for kernel in kernels}
    # One trial is a poor donor: the default schedule of a kernel of its class may promise more.
    assert "exact" in levels
    assert levels <= {"exact", "class"}
    hidden = ["--threads", "1", "--json", "--exclude-source", "mine"]
    kernels = parsed(run("plan", model, *hidden))["kernels"]
    assert "mine" not in {kernel["source"] for kernel in kernels}


def test_run_on_a_file_gives_the_models_numbers(
    run: Run, artifact: Path, model: Path, tmp_path: Path
) -> None:
    import onnxruntime

    x = np.random.default_rng(1).standard_normal((1, 4, 12, 12)).astype("float32")
    np.save(tmp_path / "x.npy", x)
    results = tmp_path / "results"
    arguments = ["--input", f"x={tmp_path / 'x.npy'}", "--output", results, "--json"]
    (output,) = parsed(run("run", artifact, *arguments))["outputs"]
    y = np.load(output["file"])
    (expected,) = onnxruntime.InferenceSession(str(model)).run(None, {"x": x})
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    assert output["shape"] == list(expected.shape)
    assert output["mean"] == pytest.approx(float(expected.mean()), rel=1e-3)
    assert output["not_finite"] == 0


def test_run_on_random_arrays(run: Run, artifact: Path) -> None:
    assert "1x8x1x1" in run("run", artifact, "--random")
    first = parsed(run("run", artifact, "--random", "--seed", 5, "--json"))["outputs"]
    assert parsed(run("run", artifact, "--random", "--seed", 5, "--json"))["outputs"] == first
    assert parsed(run("run", artifact, "--random", "--json"))["outputs"] != first


def test_run_refuses_what_the_model_does_not_take(
    artifact: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1, 4, 12, 12)))  # float64
    for arguments in (["--input", f"x={tmp_path / 'x.npy'}"], ["--input", "z=z.npy"], []):
        with pytest.raises(SystemExit) as ended:
            main(["run", str(artifact), *arguments])
        captured = capfd.readouterr()
        assert ended.value.code == 2
        assert captured.err.count("\n") == 1
        assert captured.err.startswith("error: ")


def test_bench(run: Run, artifact: Path) -> None:
    data = parsed(run("bench", artifact, "--against", "onnxruntime,untuned", "--json"))
    assert data["latency_ms"]["median"] > 0
    assert data["against"].keys() == {"onnxruntime", "untuned"}
    for other in data["against"].values():
        # Medians of ratios and ratios of medians differ by the noise of the machine.
        ratio = other["latency_ms"]["median"] / data["latency_ms"]["median"]
        assert other["speedup"] == pytest.approx(ratio, rel=0.5)


def test_bench_table(run: Run, artifact: Path) -> None:
    lines = run("bench", artifact).splitlines()
    assert [line.split()[0] for line in lines[1:]] == [str(artifact), "onnxruntime"]
    assert "faster" in lines[2] or "slower" in lines[2]


def test_doctor(run: Run) -> None:
    checks = {check["name"]: check for check in parsed(run("doctor", "--json"))["checks"]}
    assert checks["TVM builds and runs"]["status"] == "ok"
    assert "fail" not in {check["status"] for check in checks.values()}
