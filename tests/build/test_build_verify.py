"""The comparison with ONNX Runtime: catches wrong kernels, and knows when it can't tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from mutants import (
    CONV_INPUTS,
    TOKEN_INPUTS,
    write_conv_mutant,
    write_quantised_mutant,
    write_token_mutant,
)

from small_nets import INPUT_SHAPE, write_conv_net
from tunebank.build import Verification, verify, verify_against
from tunebank.build.reference import OnnxReference
from tunebank.errors import VerificationError
from tunebank.model import TensorSpec
from tunebank.runtime.feed import Array, Feed, random_feed

INPUTS = (TensorSpec("x", INPUT_SHAPE, "float32"),)
QUANTISED_ROUNDING = (2 * 3) ** 0.5 * 2.0**-8  # three roundings to 8 bits in a row

CONV_FAULTS = (
    "channel scaled",
    "bias dropped",
    "channels swapped",
    "weights in bfloat16",
    "padding off by one",
    "other activation",
    "channel of a quiet branch scaled",
    "padding counted",
)
TOKEN_FAULTS = (
    "last row of the table",
    "scale",
    "mask ignored",
    "softmax over the wrong axis",
    "epsilon",
    "approximate gelu",
)
QUANTISED_FAULTS = ("scale", "zero point", "channels swapped")

Write = Callable[..., Path]


def _session(path: Path) -> onnxruntime.InferenceSession:
    """ONNX Runtime with its optimisations: other sums than the reference's, and right ones."""
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def _against(
    folder: Path, write: Write, inputs: Sequence[TensorSpec], fault: str, rounding: float
) -> Verification:
    """A network with a fault verified against the same network without."""
    right = write(folder / "right.onnx")
    session = _session(write(folder / "mutant.onnx", fault))
    return verify(lambda feed: session.run(None, feed), right, inputs, threads=1, rounding=rounding)


@pytest.mark.parametrize(
    ("write", "inputs", "rounding"),
    [
        (write_conv_mutant, CONV_INPUTS, 3e-6),
        (write_token_mutant, TOKEN_INPUTS, 3e-6),
        (write_quantised_mutant, CONV_INPUTS, QUANTISED_ROUNDING),
    ],
)
def test_networks_without_fault_pass(
    tmp_path: Path, write: Write, inputs: Sequence[TensorSpec], rounding: float
) -> None:
    outcome = _against(tmp_path, write, inputs, "", rounding)
    assert outcome.passed and outcome.conclusive
    assert outcome.feeds == 5
    assert outcome.failure is None


@pytest.mark.parametrize("fault", CONV_FAULTS)
def test_wrong_convolutions_are_caught(tmp_path: Path, fault: str) -> None:
    outcome = _against(tmp_path, write_conv_mutant, CONV_INPUTS, fault, 1e-5)
    assert not outcome.passed
    assert outcome.failure is not None


@pytest.mark.parametrize("fault", TOKEN_FAULTS)
def test_wrong_attention_is_caught(tmp_path: Path, fault: str) -> None:
    assert not _against(tmp_path, write_token_mutant, TOKEN_INPUTS, fault, 1e-5).passed


@pytest.mark.parametrize("fault", QUANTISED_FAULTS)
def test_wrong_quantisation_is_caught(tmp_path: Path, fault: str) -> None:
    outcome = _against(tmp_path, write_quantised_mutant, CONV_INPUTS, fault, QUANTISED_ROUNDING)
    assert not outcome.passed


def test_the_last_row_of_a_table_needs_a_limit_to_be_seen(tmp_path: Path) -> None:
    blind = tuple(TensorSpec(spec.name, spec.shape, spec.dtype) for spec in TOKEN_INPUTS)
    fault = "last row of the table"
    assert _against(tmp_path, write_token_mutant, blind, fault, 1e-5).passed
    assert not _against(tmp_path, write_token_mutant, TOKEN_INPUTS, fault, 1e-5).passed


def _one_element(values: Array) -> Array:
    changed = values.copy()
    changed.flat[3] += 0.001 * np.abs(values).max()
    return changed


def _not_a_number(values: Array) -> Array:
    changed = values.copy()
    changed.flat[0] = np.nan
    return changed


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda values: values * np.float32(1.001), "of the largest value"),
        (_one_element, "of the largest value"),
        (_not_a_number, "NaN in 1 of 10 elements"),
        (lambda values: values[:, :-1], r"shape \(1, 9\) instead of \(1, 10\)"),
        (lambda values: values.astype(np.float64), "float64 instead of float32"),
    ],
)
def test_wrong_outputs_fail(tmp_path: Path, spoil: Callable[[Array], Array], said: str) -> None:
    path = write_conv_net(tmp_path / "net.onnx")
    session = _session(path)

    def run(feed: Feed) -> list[Array]:
        return [spoil(values) for values in session.run(None, feed)]

    outcome = verify(run, path, INPUTS, threads=1)
    assert not outcome.passed
    assert "'y'" in outcome.worst
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(str(outcome.failure))


def test_an_artifact_that_fails_to_run_is_wrong(tmp_path: Path) -> None:
    def run(feed: Feed) -> list[Array]:
        raise RuntimeError("TVM says:\nno such function")

    outcome = verify(run, write_conv_net(tmp_path / "net.onnx"), INPUTS, threads=1)
    assert not outcome.passed
    assert "fails where ONNX Runtime does not: no such function" in str(outcome.failure)


def test_outputs_that_ignore_the_inputs_prove_nothing(tmp_path: Path) -> None:
    path = write_conv_net(tmp_path / "net.onnx", constant_weights=True)
    # A "compiled model" that computes nothing at all agrees.
    outcome = verify(lambda feed: [np.full((1, 10), 0.1, np.float32)], path, INPUTS, threads=1)
    assert outcome.passed
    assert not outcome.conclusive


class _Made:
    """A reference made of functions, with the faults of a chosen model."""

    output_names = ("y",)

    def __init__(self, run: Callable[[Array], Array], *others: Callable[[Array], Array]) -> None:
        self._run, self._others = run, others
        self.asked = 0

    def run(self, feed: Feed) -> list[Array]:
        return [self._run(feed["x"])]

    def second_opinions(self, feed: Feed, *, nudge: float) -> Iterator[list[Array]]:
        self.asked += 1
        return ([other(feed["x"])] for other in self._others)

    def follows_inputs(self, output: str) -> bool:
        return True


VECTOR = (TensorSpec("x", (64,), "float32"),)


def test_an_ill_conditioned_model_is_held_to_its_second_opinions() -> None:
    def off(by: float) -> Callable[[Array], Array]:
        return lambda x: x * np.float32(1.0 + by)

    reference = _Made(off(0.0), off(1e-3))
    passed = [
        verify_against(lambda feed, by=by: [off(by)(feed["x"])], reference, VECTOR).passed
        for by in (1e-6, 3e-3, 6e-3)
    ]
    assert passed == [True, True, False]
    # Where opinions are further apart than 10 %, nothing can be told, and that is said.
    chaotic = _Made(off(0.0), off(0.3))
    outcome = verify_against(lambda feed: [off(0.2)(feed["x"])], chaotic, VECTOR)
    assert not outcome.conclusive
    assert outcome.feeds == 1  # of zeros, which a factor leaves as they are


def test_tables_are_nudged_where_inputs_are_indices(tmp_path: Path) -> None:
    reference = OnnxReference(write_token_mutant(tmp_path / "right.onnx"), threads=1)
    feed = random_feed(TOKEN_INPUTS)
    expected, *_ = reference.run(feed)
    optimised, nudged = (found[0] for found in reference.second_opinions(feed, nudge=1e-4))
    apart = np.abs(nudged - expected).max() / np.abs(expected).max()
    assert 1e-6 < apart < 1e-2
    assert np.abs(optimised - expected).max() < 0.1 * np.abs(nudged - expected).max()


def test_second_opinions_are_asked_only_where_they_are_needed() -> None:
    reference = _Made(np.tanh)
    assert verify_against(lambda feed: [np.tanh(feed["x"])], reference, VECTOR).passed
    assert reference.asked == 0


def test_what_is_not_a_number_in_the_reference_is_not_compared() -> None:
    reference = _Made(lambda x: np.where(x == 0, np.float32(np.nan), x))
    outcome = verify_against(lambda feed: [feed["x"]], reference, VECTOR)
    assert outcome.passed and outcome.conclusive
    assert outcome.feeds == 4  # on zeros the reference says nothing at all
    spoiled = verify_against(lambda feed: [feed["x"] * np.float32(1.1)], reference, VECTOR)
    assert not spoiled.passed


def test_feeds_that_the_reference_refuses_are_left_out() -> None:
    def picky(x: Array) -> Array:
        if not x.any():
            raise ValueError("a length of zero")
        return x

    assert verify_against(lambda feed: [feed["x"]], _Made(picky), VECTOR).feeds == 4

    def never(x: Array) -> Array:
        raise ValueError("wrong\nshape")

    with pytest.raises(VerificationError, match=r"every input .*: wrong shape; --no-verify"):
        verify_against(lambda feed: [feed["x"]], _Made(never), VECTOR)


def test_a_used_up_budget_leaves_two_feeds() -> None:
    reference = _Made(np.tanh)
    run = lambda feed: [np.tanh(feed["x"])]  # noqa: E731
    outcome = verify_against(run, reference, VECTOR, budget_seconds=0.0)
    assert outcome.feeds == 2
    assert outcome.passed and outcome.conclusive


def test_a_file_that_onnxruntime_does_not_load(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    with pytest.raises(VerificationError, match="does not load it") as caught:
        verify(lambda feed: [], tmp_path / "broken.onnx", INPUTS, threads=1)
    assert "\n" not in str(caught.value)
