"""Networks that the `onnx` package ships, against the outputs that lie beside them.

Four of its nine are left out for time: ZFNet and VGG-19 are like AlexNet, Inception v1 like v2, and
what DenseNet has more of than others is layers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import tunebank
from tunebank.model import FrontHalf

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
# Weights of one shape are all equal in these files: convolutions that agree are computed once.
CONVOLUTIONS = {
    "bvlc_alexnet": 5,
    "inception_v2": 60,
    "resnet50": 53,
    "shufflenet": 49,
    "squeezenet": 26,
}


def ramp(shape: tuple[int, ...]) -> np.ndarray:
    """The input that the outputs were made with, as ONNX's test runner has it."""
    size = int(np.prod(shape))
    return (np.arange(size).reshape(shape) / size).astype(np.float32)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_light_network(name: str, tmp_path: Path) -> None:
    path, out = LIGHT / f"light_{name}.onnx", tmp_path / "out"
    result = tunebank.compile_model(
        path, out, banks=[str(tmp_path / "bank.db")], time_budget_seconds=0, verify=False
    )
    found: FrontHalf = result.front_half
    assert (found.strategy, result.warnings) == ("full", ())
    assert found.convolutions == {"NHWC": CONVOLUTIONS[name]}
    session = tunebank.load(out)
    feed = {spec.name: ramp(spec.shape) for spec in session.get_inputs()}
    for index, actual in enumerate(session.run(None, feed)):
        tensor = onnx.TensorProto.FromString(
            (LIGHT / f"light_{name}_output_{index}.pb").read_bytes()
        )
        expected = numpy_helper.to_array(tensor)
        assert actual.shape == expected.shape
        np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-7)
