"""Elementary functions as polynomials: as exact as float32 is, everywhere, NaN and infinity too."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import tvm
from onnx import TensorProto, helper
from tvm import relax

from tunebank.device import Device
from tunebank.model import Model

Read = Callable[..., Model]
Array = np.ndarray

_UNIT = 2.0**-24
_POINTS = np.concatenate(
    [np.linspace(-12, 12, 4001), np.linspace(-80, 80, 999), [0.0, 1e-8, -1e-8, 1e-3, -1e-3]]
).astype(np.float32)
_SPECIAL = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30], np.float32)
_erf = np.vectorize(math.erf)


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "Exp": np.exp,
    "Tanh": np.tanh,
    "Erf": _erf,
    "Sigmoid": _sigmoid,
    "Swish": lambda x: x * _sigmoid(x),
    "Gelu": lambda x: x * (1 + _erf(x / math.sqrt(2))) / 2,
}


def compute(operator: str, x: Array, read: Read, tmp_path: Path, device: Device) -> Array:
    """An operator of one input, unscheduled."""
    shape = list(x.shape)
    graph = helper.make_graph(
        [helper.make_node(operator, ["x"], ["y"], name="node")],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    opset = 24 if operator == "Swish" else 20
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    path = tmp_path / "model.onnx"
    onnx.save(model, str(path))
    module = read(path).module
    machine = relax.VirtualMachine(tvm.compile(module, target=device.tvm_target()), tvm.cpu())
    return np.asarray(machine["main"](tvm.runtime.tensor(x)).numpy())


@pytest.mark.parametrize("operator", ["Exp", "Tanh", "Erf", "Sigmoid", "Gelu"])
def test_errors_are_some_units_in_the_last_place(
    operator: str, read: Read, tmp_path: Path, device: Device
) -> None:
    actual = compute(operator, _POINTS, read, tmp_path, device).astype(np.float64)
    expected = FUNCTIONS[operator](_POINTS.astype(np.float64))
    # On the left gelu is what remains of a difference: its error is relative to its operand.
    least = np.maximum(np.abs(_POINTS), 1.0) if operator == "Gelu" else np.float32(1e-30)
    scale = np.maximum(np.abs(expected), least)
    # What comes before an exponential is rounded: x(1+u) gives exp(x)(1+xu).
    steep = np.maximum(8.0, np.abs(_POINTS)) if operator in ("Exp", "Sigmoid") else 8.0
    assert (np.abs(actual - expected) <= steep * _UNIT * scale).all()


@pytest.mark.parametrize("operator", ["Exp", "Tanh", "Erf", "Sigmoid"])
def test_special_values(operator: str, read: Read, tmp_path: Path, device: Device) -> None:
    actual = compute(operator, _SPECIAL, read, tmp_path, device)
    with np.errstate(over="ignore"):
        expected = FUNCTIONS[operator](_SPECIAL.astype(np.float64)).astype(np.float32)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6)


def test_softmax_is_exact_and_safe(read: Read, tmp_path: Path, device: Device) -> None:
    x = np.random.default_rng(0).uniform(-30, 30, (7, 33)).astype(np.float32)
    x[3] += 1e4  # overflows unless the largest is taken off first
    actual = compute("Softmax", x, read, tmp_path, device).astype(np.float64)
    wide = x.astype(np.float64)
    powers = np.exp(wide - wide.max(-1, keepdims=True))
    expected = powers / powers.sum(-1, keepdims=True)
    np.testing.assert_allclose(actual, expected, rtol=60 * _UNIT, atol=1e-12)


def test_no_scalar_call_is_left(read: Read, tmp_path: Path, device: Device) -> None:
    path = tmp_path / "model.onnx"
    compute("Gelu", _POINTS[:16], read, tmp_path, device)
    text = "".join(str(kernel.func.script()) for kernel in read(path).kernels)
    assert "T.erf" not in text
    assert "T.exp" not in text
