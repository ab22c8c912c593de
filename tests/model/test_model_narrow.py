"""A quantised network's kernels read bytes where the CPU multiplies bytes; its numbers stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import tvm
from onnx import TensorProto, helper, numpy_helper
from tvm import relax

from tunebank.device import Device, detect_device
from tunebank.model import Model, load_model
from tunebank.schedule.product import as_product

SHAPE = (1, 4, 9, 9)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two convolutions, a pooling and a dense layer, between QuantizeLinear and its inverse."""
    rng = np.random.default_rng(0)
    weights: dict[str, np.ndarray] = {}
    nodes: list[onnx.NodeProto] = []

    def quantised(x: str, scale: float, zero: int) -> str:
        weights[f"{x}s"], weights[f"{x}z"] = np.float32(scale), np.uint8(zero)
        given = [f"{x}s", f"{x}z"]
        nodes.append(helper.make_node("QuantizeLinear", [x, *given], [f"{x}q"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{x}q", *given], [f"{x}d"]))
        return f"{x}d"

    def weight(name: str, *shape: int) -> str:
        weights[name] = rng.integers(-127, 128, shape).astype(np.int8)
        weights[f"{name}s"] = rng.uniform(0.002, 0.004, shape[0]).astype(np.float32)
        weights[f"{name}z"] = np.zeros(shape[0], np.int8)
        inputs = [name, f"{name}s", f"{name}z"]
        nodes.append(helper.make_node("DequantizeLinear", inputs, [f"{name}d"], axis=0))
        return f"{name}d"

    first = [quantised("x", 0.02, 120), weight("v", 16, 4, 3, 3)]
    nodes.append(helper.make_node("Conv", first, ["c"], pads=[1, 1, 1, 1]))
    nodes.append(helper.make_node("Relu", ["c"], ["r"]))
    second = [quantised("r", 0.02, 0), weight("w", 32, 16, 3, 3)]
    nodes.append(helper.make_node("Conv", second, ["e"], pads=[1, 1, 1, 1], strides=[2, 2]))
    nodes.append(helper.make_node("GlobalAveragePool", [quantised("e", 0.05, 128)], ["p"]))
    nodes.append(helper.make_node("Flatten", ["p"], ["f"]))
    third = [quantised("f", 0.02, 128), weight("u", 16, 32)]
    nodes.append(helper.make_node("Gemm", third, ["y"], transB=1))
    graph = helper.make_graph(
        nodes,
        "quantised",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 16])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    made = tmp_path_factory.mktemp("quantised") / "quantised.onnx"
    onnx.save(model, str(made))
    return made


def byte_products(model: Model) -> int:
    found = (as_product(kernel) for kernel in model.kernels)
    return sum(one is not None and one.is_of_bytes for one in found)


@pytest.mark.parametrize(("mcpu", "count"), [("icelake-server", 3), ("core-avx2", 0)])
def test_where_the_cpu_has_the_instruction(path: Path, mcpu: str, count: int) -> None:
    device = detect_device(f'{{"kind":"llvm","mcpu":"{mcpu}"}}', threads=1)
    model = load_model(path, device)
    assert byte_products(model) == count
    weights = {
        str(kernel.func.params[position].dtype)
        for kernel in model.kernels
        if kernel.anchor is not None and kernel.name.startswith(("conv2d", "matmul"))
        for position in sorted(kernel.layout_free)[:1]
    }
    assert weights == {"int8" if count else "float32"}


def test_the_numbers_are_those_of_onnx_runtime(path: Path, device: Device) -> None:
    model = load_model(path, device)
    x = np.random.default_rng(3).standard_normal(SHAPE).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": x})
    machine = relax.VirtualMachine(tvm.compile(model.module, target=device.tvm_target()), tvm.cpu())
    result = machine["main"](tvm.runtime.tensor(x))
    actual = (result if hasattr(result, "numpy") else result[0]).numpy()
    scale = float(np.abs(expected).max())
    assert scale > 0.1, "numbers that say something"
    np.testing.assert_allclose(actual, expected, rtol=0, atol=0.02 * scale)  # a step of rounding
