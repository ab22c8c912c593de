"""Single operators that TVM had not, or had wrong, through TVM: a case for each rewrite."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from rewrite_cases import compiled, model_of, run

from tunebank._tvm.onnx_frontend import repair_importer
from tunebank.model.rewrite import rewrite, unsupported

rng = np.random.default_rng(0)


def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def whole(low, high, *shape, dtype=np.int64):
    return rng.integers(low, high, shape).astype(dtype)


@dataclass(frozen=True)
class Case:
    """A node, its inputs, what of them is constant, and its attributes."""

    op: str
    inputs: dict[str, np.ndarray]
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    attributes: dict[str, object] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ("y",)
    opset: int = 17
    domain: str = ""

    def __str__(self):
        return f"{self.op}-{self.opset}-" + "-".join(map(str, self.attributes))


X = normal(2, 4, 6, 5)
LSTM = {"w": normal(2, 12, 3), "r": normal(2, 12, 3), "b": normal(2, 24)}
INF = np.float32(np.inf)

CASES = [
    Case("Conv", {"x": normal(1, 4, 9)}, {"w": normal(6, 2, 3)}, {"group": 2, "strides": [2]}),
    Case("ConvTranspose", {"x": normal(1, 4, 5)}, {"w": normal(4, 3, 3)}, {"strides": [2]}),
    Case(
        "ConvTranspose",
        {"x": normal(1, 2, 4, 4)},
        {"w": normal(2, 3, 3, 3)},
        {"strides": [2, 2], "output_shape": [9, 8]},
    ),
    Case(
        "MaxPool",
        {"x": X},
        {},
        {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_LOWER"},
    ),
    Case(
        "AveragePool",
        {"x": normal(1, 3, 9)},
        {},
        {"kernel_shape": [3], "ceil_mode": 1, "strides": [2]},
    ),
    Case("MaxPool", {"x": X}, {}, {"kernel_shape": [2, 2], "strides": [2, 2]}, outputs=("y", "i")),
    Case("Sum", {"x": X, "z": normal(6, 5), "u": X}),
    Case("LSTM", {"x": normal(2, 2, 3)}, LSTM, {"hidden_size": 3, "direction": "bidirectional"}),
    Case(
        "Resize",
        {"x": X},
        {"s": np.array([1, 1, 0.6, 0.6], np.float32)},
        {"mode": "linear"},
        ("x", "", "s"),
    ),
    Case(
        "Resize",
        {"x": X},
        {"z": np.array([2, 4, 4, 3])},
        {"mode": "cubic", "antialias": 1},
        ("x", "", "", "z"),
        opset=18,
    ),
    Case("Resize", {"x": X}, {"s": np.array([1, 1, 2, 2], np.float32)}, {}, ("x", "", "s")),
    Case("Upsample", {"x": X}, {"s": np.array([1, 1, 2, 3], np.float32)}, {}, opset=9),
    Case("Pow", {"x": whole(1, 5, 3, 4)}, {"e": np.int64(4)}),
    Case("Pow", {"x": np.abs(X)}, {"e": np.float32(0.5)}),
    Case("Clip", {"x": whole(-9, 9, 3, 4)}, {"low": np.int64(-2)}),
    Case("Clip", {"x": X}, {"low": np.float32(-0.5)}),
    Case(
        "OneHot",
        {"x": whole(-3, 5, 2, 3)},
        {"d": np.int64(5), "v": np.array([0, 2], np.float32)},
        {"axis": 1},
    ),
    Case("ReduceMean", {"x": whole(0, 50, 3, 4)}, {}, {"axes": [1]}),
    Case("ReduceMax", {"x": X > 1}, {"a": np.array([1])}, opset=20),
    Case(
        "ScatterElements",
        {"x": X, "u": normal(2, 2, 3, 4)},
        {"i": np.argsort(normal(2, 2, 3, 5))[..., :4]},
        {"axis": 3},
        ("x", "i", "u"),
    ),
    Case(
        "Slice",
        {"x": X},
        {"a": np.array([-100]), "b": np.array([-(2**63)]), "c": np.array([2]), "d": np.array([-2])},
    ),
    Case("IsInf", {"x": np.array([1, INF, -INF], np.float32)}, {}, {"detect_negative": 0}),
    Case("LayerNormalization", {"x": X}, {"g": normal(1, 5)}, {"axis": 2}),
    Case("LayerNormalization", {"x": X}, {"g": normal(5)}, {}, outputs=("y", "m", "s")),
    Case("LpNormalization", {"x": X}, {}, {"axis": 1, "p": 2}),
    Case("Celu", {"x": X}, {}, {"alpha": 0.7}),
    Case(
        "ReverseSequence",
        {"x": normal(5, 2, 3)},
        {"n": np.array([3, 5])},
        {"time_axis": 0, "batch_axis": 1},
    ),
    Case("STFT", {"x": normal(2, 64, 1)}, {"s": np.int64(8), "w": np.abs(normal(16))}),
    Case("DFT", {"x": normal(2, 10, 2)}, {}, {"axis": 1, "inverse": 1}),
    Case(
        "QLinearMatMul",
        {"a": whole(0, 256, 3, 8, dtype=np.uint8)},
        {
            "as": np.float32(0.02),
            "az": np.uint8(99),
            "b": whole(-99, 99, 8, 4, dtype=np.int8),
            "bs": np.float32(0.03),
            "bz": np.int8(0),
            "ys": np.float32(0.1),
            "yz": np.uint8(128),
        },
    ),
    Case(
        "ConvInteger",
        {"x": whole(0, 256, 1, 32, 5, 5, dtype=np.uint8)},
        {"w": whole(0, 256, 3, 32, 3, 3, dtype=np.uint8), "xz": np.uint8(7)},
    ),
    Case("DynamicQuantizeLinear", {"x": np.zeros((2, 3), np.float32)}, outputs=("y", "s", "z")),
    Case(
        "FusedMatMul",
        {"a": X},
        {"b": normal(4, 5)},
        {"transB": 1, "alpha": 0.2},
        domain="com.microsoft",
    ),
    Case(
        "Attention",
        {"x": normal(2, 5, 8)},
        {"w": normal(8, 24), "b": normal(24)},
        {"num_heads": 2},
        domain="com.microsoft",
    ),
    Case(
        "RotaryEmbedding",
        {"x": normal(1, 2, 3, 8)},
        {"c": normal(1, 3, 4), "s": normal(1, 3, 4)},
        opset=23,
    ),
    Case(
        "Attention",
        {"q": normal(1, 2, 3, 4), "k": normal(1, 2, 3, 4), "v": normal(1, 2, 3, 4)},
        {"m": np.array([[True, False, False], [True] * 3, [False] * 3])},
        opset=23,
    ),
    Case("Hardmax", {"x": X}, {}, {"axis": 1}, opset=11),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_one_operator(case):
    names = case.names or (*case.inputs, *case.weights)
    node = helper.make_node(
        case.op, names, case.outputs, "it", domain=case.domain, **case.attributes
    )
    model = model_of([node], case.inputs, case.outputs, case.weights, opset=case.opset)
    expected = run(model, case.inputs)
    changed = rewrite(model)
    assert unsupported(changed) == []
    got = compiled(changed, case.inputs)
    for value, reference in zip(got, expected, strict=True):
        assert value.dtype == reference.dtype
        assert value.shape == reference.shape
        np.testing.assert_allclose(value, reference, rtol=1e-3, atol=1e-4)


def test_clip_with_constant_bounds_is_imported_as_one_call():
    from tvm.relax.frontend.onnx import from_onnx

    repair_importer()
    bounds = {"low": np.float32(0), "high": np.float32(6)}
    model = model_of(
        [helper.make_node("Clip", ["x", "low", "high"], ["y"])], {"x": X}, ["y"], bounds
    )
    text = from_onnx(rewrite(model), keep_params_in_input=False).script()
    assert "R.clip(" in text
    assert "minimum" not in text


def test_the_importer_does_not_know_domains():
    """If this fails, `unsupported` may let the importer decide about other domains."""
    from tvm.relax.frontend.onnx import from_onnx

    model = model_of(
        [helper.make_node("Relu", ["x"], ["y"], domain="no.such.domain")], {"x": X}, ["y"]
    )
    model.opset_import.append(helper.make_opsetid("no.such.domain", 1))
    assert "relu" in from_onnx(model, keep_params_in_input=False).script()
    assert unsupported(model) == ["operator no.such.domain.Relu (node 'y')"]


def test_types_follow_the_integers():
    model = model_of(
        [helper.make_node("MatMulInteger", ["a", "b"], ["y"])],
        {"a": np.ones((2, 3), np.uint8)},
        ["y"],
        {"b": np.ones((3, 2), np.int8)},
    )
    kinds = onnx.shape_inference.infer_shapes(rewrite(model)).graph.output[0].type.tensor_type
    assert kinds.elem_type == TensorProto.INT32


def test_a_box_whose_overlap_is_the_threshold_stays():
    boxes = np.array([[[0, 0, 1, 2], [0, 1, 1, 3]]], np.float32)  # they share 1 of 3
    scores = np.array([[[0.9, 0.8]]], np.float32)
    weights = {"n": np.array([5]), "iou": np.array([1 / 3], np.float32)}
    node = helper.make_node("NonMaxSuppression", ["b", "s", *weights], ["y"])
    inputs = {"b": boxes, "s": scores}
    model = model_of([node], inputs, ["y"], weights)
    expected = run(model, inputs)
    assert len(expected[0]) == 2
    np.testing.assert_array_equal(compiled(rewrite(model), inputs)[0], expected[0])
