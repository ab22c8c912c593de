"""LSTM, GRU and RNN as operators on time steps, against ONNX Runtime's own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import helper
from rewrite_cases import check, model_of, operators, run

from tunebank.errors import ModelError
from tunebank.model.rewrite import rewrite

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
ACTIVATIONS = {"LSTM": 3, "GRU": 2, "RNN": 1}
WITH_ALPHA = ("LeakyRelu", "Elu", "ThresholdedRelu")
WITH_BETA = ("Affine", "ScaledTanh", "HardSigmoid")


@st.composite
def recurrent_models(draw):
    """A model of one recurrent node, with inputs."""
    kind = draw(st.sampled_from(sorted(GATES)))
    direction = draw(st.sampled_from(["forward", "reverse", "bidirectional"]))
    steps, batch = draw(st.integers(1, 20)), draw(st.integers(1, 3))
    entering, hidden = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    directions = 2 if direction == "bidirectional" else 1
    width = GATES[kind] * hidden

    def normal(*shape):
        return (0.3 * rng.standard_normal(shape)).astype(np.float32)  # states stay small

    inputs = {"X": normal(steps, batch, entering)}
    weights = {"W": normal(directions, width, entering), "R": normal(directions, width, hidden)}
    names = ["X", "W", "R", "", "", "", "", ""]
    if draw(st.booleans()):
        weights["B"], names[3] = normal(directions, 2 * width), "B"
    lengths = draw(st.sampled_from(["none", "full", "constant", "input"]))
    if lengths != "none":
        values = rng.integers(1, steps + 1, batch).astype(np.int32)
        full = np.full(batch, steps, np.int32)
        target = inputs if lengths == "input" else weights
        target["lengths"] = full if lengths == "full" else values
        names[4] = "lengths"
    if draw(st.booleans()):
        inputs["h0"], names[5] = normal(directions, batch, hidden), "h0"
    attributes = {"direction": direction, "hidden_size": hidden}
    if kind == "LSTM":
        if draw(st.booleans()):
            inputs["c0"], names[6] = normal(directions, batch, hidden), "c0"
        if draw(st.booleans()):
            weights["P"], names[7] = normal(directions, 3 * hidden), "P"
        attributes["input_forget"] = draw(st.integers(0, 1))
    if kind == "GRU":
        attributes["linear_before_reset"] = draw(st.integers(0, 1))
    if draw(st.booleans()):
        attributes["clip"] = draw(st.sampled_from([0.5, 2.0]))
    if draw(st.booleans()):
        attributes |= draw(activations(kind, directions))
    while not names[-1]:
        names.pop()
    outputs = ["Y", "Y_h", "Y_c"] if kind == "LSTM" else ["Y", "Y_h"]
    node = helper.make_node(kind, names, outputs, name="layer", **attributes)
    return model_of([node], inputs, outputs, weights, opset=draw(st.sampled_from([9, 14]))), inputs


@st.composite
def activations(draw, kind, directions):
    """Activations of the directions, with their parameters."""
    names, alphas, betas = [], [], []
    for _ in range(ACTIVATIONS[kind] * directions):
        name = draw(
            st.sampled_from(
                ["Relu", "Tanh", "Sigmoid", "Softsign", "Softplus", *WITH_ALPHA, *WITH_BETA]
            )
        )
        names.append(name)
        if name in (*WITH_ALPHA, *WITH_BETA):
            alphas.append(draw(st.sampled_from([0.1, 0.3])))
        if name in WITH_BETA:
            betas.append(draw(st.sampled_from([0.2, 0.6])))
    attributes = {"activations": names}
    if alphas:
        attributes["activation_alpha"] = alphas
    if betas:
        attributes["activation_beta"] = betas
    return attributes


@settings(max_examples=120, deadline=None)
@given(recurrent_models())
def test_equal_to_onnx_runtime(case):
    model, inputs = case
    # Some activations have no bounds: what overflows is undefined in either.
    assume(all(np.isfinite(value).all() for value in run(model, inputs)))
    changed = check(model, inputs, rtol=1e-3, atol=1e-4)
    assert not operators(changed) & set(GATES)


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_batch_first_is_transposed(direction):
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    steps, batch, entering, hidden = 5, 2, 3, 4
    count = 2 if direction == "bidirectional" else 1
    weights = {"W": normal(count, 4 * hidden, entering), "R": normal(count, 4 * hidden, hidden)}
    states = {"h0": normal(count, batch, hidden), "c0": normal(count, batch, hidden)}
    attributes = {"hidden_size": hidden, "direction": direction}
    x = normal(steps, batch, entering)
    outputs = ["Y", "Y_h", "Y_c"]
    names = ["X", "W", "R", "", "", "h0", "c0"]
    first = model_of(
        [helper.make_node("LSTM", names, outputs, **attributes)],
        {"X": x, **states},
        outputs,
        weights,
    )
    turned = {name: value.transpose(1, 0, 2) for name, value in {"X": x, **states}.items()}
    last = model_of(
        [helper.make_node("LSTM", names, outputs, **attributes, layout=1)],
        turned,
        outputs,
        weights,
    )
    expected = run(first, {"X": x, **states})
    got = run(rewrite(last), turned)  # ONNX Runtime itself has no layout 1
    np.testing.assert_allclose(got[0], expected[0].transpose(2, 0, 1, 3), rtol=1e-4, atol=1e-5)
    for value, reference in zip(got[1:], expected[1:], strict=True):
        np.testing.assert_allclose(value, reference.transpose(1, 0, 2), rtol=1e-4, atol=1e-5)


def test_too_long_a_sequence_is_refused_by_name():
    x = np.zeros((5000, 1, 2), np.float32)
    weights = {"W": np.zeros((1, 9, 2), np.float32), "R": np.zeros((1, 9, 3), np.float32)}
    node = helper.make_node("GRU", ["X", "W", "R"], ["Y"], name="listener", hidden_size=3)
    with pytest.raises(ModelError, match=r"operator GRU \(node 'listener'\): 5000 time steps"):
        rewrite(model_of([node], {"X": x}, ["Y"], weights))
