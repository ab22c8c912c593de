"""A network's kernels, and its numbers after everything that was done to the graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import tvm
from tvm import ir, relax, tirx, topi

from graph_builder import GraphBuilder
from networks import write_small_network
from tunebank.device import Device
from tunebank.model import Model, load_model
from tunebank.model.fold import fold_constants


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_network(tmp_path_factory.mktemp("network"))


@pytest.fixture(scope="module")
def model(path: Path, device: Device) -> Model:
    return load_model(path, device)


def test_what_a_model_says_of_itself(model: Model, path: Path) -> None:
    assert (model.name, model.path) == ("small", path)
    assert [(spec.name, spec.shape, spec.dtype) for spec in model.inputs] == [
        ("x", (1, 3, 12, 12), "float32")
    ]
    assert model.output_names == ("y",)
    assert model.warnings == ()
    assert model.flops == sum(kernel.flops * kernel.weight for kernel in model.kernels)
    assert [k.flops * k.weight for k in model.kernels] == sorted(
        (k.flops * k.weight for k in model.kernels), reverse=True
    )


def test_convolutions_are_in_nhwc(model: Model) -> None:
    convolutions = [k for k in model.kernels if k.name.startswith("conv2d")]
    assert len(convolutions) == 3
    for kernel in convolutions:
        assert kernel.anchor is not None
        assert kernel.blocks[kernel.anchor] == "conv2d_nhwc"
        _, height, width, channels, *_ = kernel.loop_extents[kernel.anchor]
        assert height == width
        assert channels in (16, 24)


def test_no_transpose_stands_between_two_convolutions(model: Model) -> None:
    """The layout passes through clips, sums and pooling: the input and the last vector remain."""
    transposes = [kernel for kernel in model.kernels if "transpose" in kernel.name]
    assert sum(kernel.weight for kernel in transposes) <= 2
    assert {kernel.flops for kernel in transposes} == {0.0}
    (pool,) = (kernel for kernel in model.kernels if kernel.name.startswith("max_pool"))
    assert pool.loop_extents[1][-3:] == (16, 2, 2), "channels last"
    assert {extent for kernel in transposes for extent in kernel.loop_extents[1]} <= {1, 3, 12, 24}


def test_a_clip_keeps_its_bounds(tmp_path: Path, device: Device) -> None:
    """Clips stand aside while the layout is converted; each comes back with its own bounds."""
    g = GraphBuilder(seed=1)
    x = "x"
    for low, high in ((-0.5, 0.25), (0.0, 0.125), (-0.0625, 3.0)):
        bounds = [g._weight(np.array(value)) for value in (low, high)]
        x = g.op("Clip", g.conv_bn(x, 4, 4, kernel=1, act=""), *bounds)
    path = tmp_path / "clips.onnx"
    onnx.save(g.finish("clips", x, input_shape=(1, 4, 5, 5), output_shape=(1, 4, 5, 5)), path)
    actual, expected = outputs(load_model(path, device), path, device, (1, 4, 5, 5))
    assert expected.min() < 0 < expected.max()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6)


def test_what_follows_a_convolution_is_fused_into_it(model: Model) -> None:
    names = sorted(kernel.name for kernel in model.kernels)
    assert not [name for name in names if "batch_norm" in name]
    assert all("clip" in name for name in names if name.startswith("conv2d"))


def test_weights_count_the_calls(model: Model, device: Device, tmp_path: Path) -> None:
    repeated = next(k for k in model.kernels if k.weight > 1)
    assert repeated.weight == 3
    assert repeated.name.startswith("conv2d")
    once = load_model(write_small_network(tmp_path, repeated=1), device)
    assert {kernel.key for kernel in once.kernels} == {kernel.key for kernel in model.kernels}
    assert [k.weight for k in once.kernels if k.key == repeated.key] == [1]
    longer = load_model(write_small_network(tmp_path, repeated=5), device)
    assert [k.weight for k in longer.kernels if k.key == repeated.key] == [5]
    assert longer.flops - once.flops == pytest.approx(4 * repeated.flops)


def test_every_program_of_the_graph_is_one_of_the_kernels(model: Model) -> None:
    programs = {
        str(var.name_hint): function
        for var, function in model.module.functions_items()
        if isinstance(function, tirx.PrimFunc)
    }
    assert set(model.kernel_of) == set(programs)
    assert set(model.kernel_of.values()) == {kernel.key for kernel in model.kernels}


def test_weights_of_kernels_may_be_packed(model: Model) -> None:
    convolution = next(k for k in model.kernels if k.name.startswith("conv2d"))
    assert 1 in [int(index) for index in convolution.func.attrs["layout_free_buffers"]]


def test_the_numbers_are_those_of_onnx_runtime(model: Model, path: Path, device: Device) -> None:
    actual, expected = outputs(model, path, device, (1, 3, 12, 12))
    scale = float(np.abs(expected).max())
    assert scale > 0.01, "numbers that say something"
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * scale)


def outputs(
    model: Model, path: Path, device: Device, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """What our graph, unscheduled, and ONNX Runtime give for the same random input."""
    x = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": x})
    machine = relax.VirtualMachine(tvm.compile(model.module, target=device.tvm_target()), tvm.cpu())
    result = machine["main"](tvm.runtime.tensor(x))
    return (result if hasattr(result, "numpy") else result[0]).numpy(), expected


def test_constants_are_folded(device: Device) -> None:
    rng = np.random.default_rng(0)
    weight, shift = (rng.standard_normal(s).astype(np.float32) for s in ((6, 4), (4,)))
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, 4), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            moved = builder.emit_te(topi.transpose, relax.const(weight))
            doubled = builder.emit_te(topi.add, moved, moved)
            product = builder.emit_te(topi.matmul, x, doubled)
            squared = builder.emit_te(topi.multiply, relax.const(shift), relax.const(shift))
            total = builder.emit_te(topi.sum, squared)
            result = builder.emit_output(builder.emit_te(topi.add, product, total))
        builder.emit_func_output(result)
    before = builder.get()
    assert calls_of(before) == 6
    after = fold_constants(before, device.tvm_target())
    assert calls_of(after) == 2, "what depends on the input"
    constants = constants_of(after)
    assert len(constants) == 2
    doubled_weight = next(c for c in constants if c.shape == (4, 6))
    np.testing.assert_array_equal(doubled_weight, 2 * weight.T)
    (sum_of_squares,) = (c for c in constants if c.shape == ())
    np.testing.assert_allclose(sum_of_squares, np.square(shift).sum(), rtol=1e-6)


def calls_of(module: tvm.ir.IRModule) -> int:
    return str(module["main"].script()).count("call_tir(")


def constants_of(module: tvm.ir.IRModule) -> list[np.ndarray]:
    found: list[np.ndarray] = []

    def visit(expr: object) -> None:
        if isinstance(expr, ir.GenericConst):
            found.append(expr.value.numpy())

    relax.analysis.post_order_visit(module["main"], visit)
    return found
