"""ONNX Runtime's Fourier transforms err more than sums do, and are allowed to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tunebank.build import verify
from tunebank.build.reference import OnnxReference
from tunebank.model import TensorSpec
from tunebank.runtime.feed import Array

_SUMS = 3e-6


def _write(path: Path, points: int) -> Path:
    node = helper.make_node("DFT", ["x", "", "axis"], ["y"])
    graph = helper.make_graph(
        [node],
        "transform",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16, points, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 16, points, 2])],
        [helper.make_tensor("axis", TensorProto.INT64, [], [2])],
    )
    opset = helper.make_opsetid("", 20)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=9), path)
    return path


def _transform(x: Array) -> Array:
    found = np.fft.fft(x[..., 0].astype(np.float64), axis=2)
    return np.stack([found.real, found.imag], axis=-1)


@pytest.mark.parametrize("points", [25, 768, 1500])
def test_a_transform_errs_within_its_bound_and_more_than_sums(tmp_path: Path, points: int) -> None:
    reference = OnnxReference(_write(tmp_path / "m.onnx", points), threads=1)
    x = np.random.default_rng(0).standard_normal((1, 16, points, 1), dtype=np.float32)
    exact = _transform(x)
    error = np.linalg.norm(reference.run({"x": x})[0] - exact) / np.linalg.norm(exact)
    assert 0.1 * reference.rounding < error < reference.rounding


def test_one_of_a_power_of_two_is_exact(tmp_path: Path) -> None:
    assert OnnxReference(_write(tmp_path / "m.onnx", 512), threads=1).rounding == 0.0


@pytest.mark.parametrize(("scale", "is_right"), [(1.0, True), (1.05, False)])
def test_an_exact_transform_passes_and_a_wrong_one_does_not(
    tmp_path: Path, scale: float, is_right: bool
) -> None:
    path = _write(tmp_path / "m.onnx", 768)
    inputs = (TensorSpec("x", (1, 16, 768, 1), "float32"),)
    found = verify(
        lambda feed: [(scale * _transform(feed["x"])).astype(np.float32)],
        path,
        inputs,
        threads=1,
        rounding=_SUMS,
    )
    assert found.passed is is_right
    assert found.max_rel_error > 4 * _SUMS
