"""Windows over sums of products, line by line: what is such a kernel, and its numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from graph_builder import GraphBuilder
from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.measure import LocalMeasurer
from tunebank.model import load_model, possible_joins
from tunebank.schedule import IllegalScheduleError, Space, Trace, default_schedule
from tunebank.schedule.chain import as_chain, may_slide
from tunebank.schedule.lines import (
    KIND,
    Parameters,
    fits,
    is_worthwhile,
    lines_traces,
)
from tunebank.schedule.trace import one_step

POOL = {"kernel_shape": [3, 3], "strides": [2, 2]}
WINDOWS: dict[str, dict[str, Any]] = {
    "3x3": {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "group": 40},
    "3x3 of stride 2": {
        "kernel_shape": [3, 3], "pads": [0, 0, 1, 1], "strides": [2, 2], "group": 40,
    },
    "5x5 of stride 2": {
        "kernel_shape": [5, 5], "pads": [2, 2, 2, 2], "strides": [2, 2], "group": 40,
    },
    "dilated": {
        "kernel_shape": [3, 3], "pads": [2, 2, 2, 2], "dilations": [2, 2], "group": 40,
    },
    "no padding": {"kernel_shape": [3, 3], "group": 40},
    "one line": {"kernel_shape": [1, 5], "pads": [0, 2, 0, 2], "group": 40},
    "far apart": {"kernel_shape": [2, 2], "strides": [3, 3], "group": 40},
}  # fmt: skip


def network(
    folder: Path, window: dict[str, Any], *, pool: str = "", activation: str = "Relu", **first: Any
) -> Path:
    """A convolution with bias and activation, and a window over its results, as a file."""
    import onnx

    g = GraphBuilder()
    kernel = first.get("kernel", 1)
    x = g.conv_bn("x", 24, 40, kernel=kernel, stride=first.get("stride", 1), act="")
    x = g.op("Mul", x, g.op("Sigmoid", x)) if activation == "Swish" else g.op(activation, x)
    if pool:
        x = g.op(pool, x, **window)
    else:
        x = g.op("Conv", x, g._weight(_weight(window["kernel_shape"])), **window)
        x = g.op("Relu", g.batch_norm(x, 40))
    model = g.finish("net", x, input_shape=(2, 24, 17, 19), output_shape=(2, 40, -1, -1))
    model.graph.output[0].type.tensor_type.ClearField("shape")
    path = folder / "net.onnx"
    onnx.save(model, str(path))
    return path


def _weight(shape: list[int]) -> Any:
    import numpy as np

    return np.random.default_rng(1).standard_normal((40, 1, *shape))


def chains(path: Path, device: Device) -> list[Kernel]:
    """The kernels of this kind that may be made of two in a network."""
    found = possible_joins(load_model(path, device), lambda first, second: may_slide(second))
    return [kernel for kernel in found.values() if as_chain(kernel) is not None]


def joint_kernel(path: Path, device: Device) -> Kernel:
    """The only one."""
    (found,) = chains(path, device)
    return found


def check(kernel: Kernel, device: Device, measurer: LocalMeasurer, *given: int) -> None:
    """Measures the kernel under a schedule, and its numbers against the reference schedule."""
    chain = as_chain(kernel)
    assert chain is not None
    one = Parameters(*given)
    assert fits(chain, device, one)
    (result,) = measurer.measure([Space(kernel, device).apply(one.trace)], best_us={})
    assert (result.status, result.error) == ("ok", None)
    assert result.checked


@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("given", [(14, 1, 1), (6, 2, 3)], ids=str)
def test_the_numbers_are_the_kernels(
    name: str,
    given: tuple[int, int, int],
    tmp_path: Path,
    device: Device,
    measurer: LocalMeasurer,
) -> None:
    check(joint_kernel(network(tmp_path, WINDOWS[name]), device), device, measurer, *given)


@pytest.mark.parametrize(
    "about",
    [
        {"pool": "MaxPool", "window": {**POOL, "pads": [1, 1, 1, 1]}},
        {"pool": "MaxPool", "window": POOL},
        {"window": WINDOWS["3x3"], "activation": "Swish"},
        {"window": WINDOWS["3x3"], "kernel": 3, "stride": 2},
    ],
    ids=["padded pooling", "pooling", "swish", "3x3 of stride 2 before"],
)
def test_the_numbers_of_other_kinds(
    about: dict[str, Any], tmp_path: Path, device: Device, measurer: LocalMeasurer
) -> None:
    check(joint_kernel(network(tmp_path, **about), device), device, measurer, 7, 2, 2)


def test_it_is_the_default(tmp_path: Path, device: Device) -> None:
    kernel = joint_kernel(network(tmp_path, WINDOWS["3x3"]), device)
    chosen = default_schedule(Space(kernel, device))
    assert chosen is not None
    assert chosen.trace.instructions[0].kind == KIND
    assert is_worthwhile(kernel, device)


def test_a_convolution_over_all_channels_is_no_window(tmp_path: Path, device: Device) -> None:
    window = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "group": 20}
    g = GraphBuilder()
    x = g.conv_bn("x", 24, 40, kernel=1)
    x = g.conv(x, 40, 40, kernel=3, groups=window["group"])
    import onnx

    model = g.finish("net", x, input_shape=(1, 24, 9, 9), output_shape=(1, 40, 9, 9))
    onnx.save(model, str(tmp_path / "net.onnx"))
    assert chains(tmp_path / "net.onnx", device) == []


@pytest.mark.parametrize(
    "values", [(0, 1, 1), (14, 0, 1), (14, 9, 1), (14, 1, 0), (14, 1, 99), (14,)]
)
def test_a_stranger_s_parameters_are_refused(
    values: tuple[Any, ...], tmp_path: Path, device: Device
) -> None:
    kernel = joint_kernel(network(tmp_path, WINDOWS["3x3"]), device)
    with pytest.raises(IllegalScheduleError):
        Space(kernel, device).apply(one_step(KIND, *values))


def test_traces_come_back_from_their_text(tmp_path: Path, device: Device) -> None:
    (first, *_) = lines_traces(joint_kernel(network(tmp_path, WINDOWS["3x3"]), device), device)
    again = Trace.from_text(first.text)
    assert again.identity == first.identity
    assert Parameters.of(again) == Parameters.of(first)
