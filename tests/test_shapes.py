"""One artifact for several input shapes: compiled, run, timed, refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import tunebank
from networks import small_network
from tunebank import api
from tunebank.cli import main
from tunebank.errors import UsageError


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small network with a batch that is open."""
    proto = small_network(repeated=1)
    for value in (proto.graph.input[0], proto.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    path = tmp_path_factory.mktemp("model") / "small.onnx"
    onnx.save(proto, str(path))
    return path


@pytest.fixture(scope="module")
def artifact(model: Path) -> Path:
    out, bank = model.with_name("out"), model.with_name("bank.db")
    result = api.compile_model(
        model,
        out,
        banks=[str(bank)],
        time_budget_seconds=0,
        dims={"batch": [1, 3]},
        threads=1,
    )
    assert [one.name for one in result.manifest.functions] == ["main", "main_1"]
    assert result.manifest.verified is not None
    assert result.manifest.verified.conclusive
    shapes = [one["inputs"]["x"] for one in result.to_json()["functions"]]
    assert shapes == [[1, 3, 12, 12], [3, 3, 12, 12]]
    return out


def array(batch: int) -> np.ndarray:
    return np.random.default_rng(batch).standard_normal((batch, 3, 12, 12)).astype(np.float32)


def test_the_shape_of_the_input_decides(artifact: Path, model: Path) -> None:
    session = tunebank.load(artifact)
    reference = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    for batch in (1, 3, 1, 3):
        x = array(batch)
        (actual,) = session.run(None, {"x": x})
        (expected,) = reference.run(None, {"x": x})
        assert actual.shape == (batch, 10)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_open_extents_are_shown_as_open(artifact: Path) -> None:
    session = tunebank.load(artifact)
    assert [spec.shape for spec in session.get_inputs()] == [(None, 3, 12, 12)]
    assert [spec.shape for spec in session.get_outputs()] == [(None, 10)]


def test_another_shape_is_refused(artifact: Path) -> None:
    with pytest.raises(UsageError) as caught:
        tunebank.load(artifact).run(None, {"x": array(2)})
    said = str(caught.value)
    assert "not compiled for x (2, 3, 12, 12)" in said
    assert "x (1, 3, 12, 12); x (3, 3, 12, 12)" in said


def test_it_is_timed_against_the_same_model(artifact: Path) -> None:
    result = api.bench_artifact(
        artifact, against=("onnxruntime", "untuned"), rounds=1, min_seconds=0.05
    )
    assert set(result.against) == {"onnxruntime", "untuned"}


def test_run_takes_the_function_of_the_given_array(
    artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", array(3))
    with pytest.raises(SystemExit) as ended:
        main(["run", str(artifact), "--input", f"x={tmp_path / 'x.npy'}", "--json"])
    assert ended.value.code == 0
    (output,) = json.loads(capsys.readouterr().out)["outputs"]
    assert output["shape"] == [3, 10]


def test_run_at_random_takes_the_first_function(
    artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", str(artifact), "--random", "--json"])
    assert ended.value.code == 0
    (output,) = json.loads(capsys.readouterr().out)["outputs"]
    assert output["shape"] == [1, 10]
