"""The comparison with ONNX Runtime: catches wrong numbers, and knows when it can't tell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from small_nets import INPUT_SHAPE, write_conv_net
from tunebank.build import verify
from tunebank.build.verify import Array, Feed
from tunebank.model import TensorSpec

INPUTS = (TensorSpec("x", INPUT_SHAPE, "float32"),)


def _reference(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_equal_numbers_pass(tmp_path: Path) -> None:
    path = write_conv_net(tmp_path / "net.onnx")
    session = _reference(path)
    outcome = verify(lambda feed: session.run(None, feed), path, INPUTS, threads=1)
    assert outcome.passed
    assert outcome.conclusive


def _scaled(values: Array) -> Array:
    return values * np.float32(1.01)


def _one_element(values: Array) -> Array:
    changed = values.copy()
    changed.flat[3] += 0.05 * np.abs(values).max()
    return changed


def _not_a_number(values: Array) -> Array:
    changed = values.copy()
    changed.flat[0] = np.nan
    return changed


@pytest.mark.parametrize("spoil", [_scaled, _one_element, _not_a_number, lambda v: v[:, :-1]])
def test_wrong_numbers_fail(tmp_path: Path, spoil: object) -> None:
    path = write_conv_net(tmp_path / "net.onnx")
    session = _reference(path)

    def run(feed: Feed) -> list[Array]:
        return [spoil(values) for values in session.run(None, feed)]  # type: ignore[operator]

    outcome = verify(run, path, INPUTS, threads=1)
    assert not outcome.passed
    assert "'y'" in outcome.worst


def test_outputs_that_ignore_the_inputs_prove_nothing(tmp_path: Path) -> None:
    path = write_conv_net(tmp_path / "net.onnx", constant_weights=True)
    # A "compiled model" that computes nothing at all agrees.
    outcome = verify(lambda feed: [np.full((1, 10), 0.1, np.float32)], path, INPUTS, threads=1)
    assert outcome.passed
    assert not outcome.conclusive
