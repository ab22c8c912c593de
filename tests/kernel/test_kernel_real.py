"""Kernels of real networks: what is one class in two of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
import pytest

from graph_builder import write_network
from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.model import load_model

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory: pytest.TempPathFactory, device: Device) -> tuple[Kernel, ...]:
    path = tmp_path_factory.mktemp("networks") / "resnet18.onnx"
    write_network("resnet18", path)
    kernels = load_model(path, device).kernels
    path.unlink()
    return kernels


@pytest.fixture(scope="module")
def resnet50(device: Device) -> tuple[Kernel, ...]:
    return load_model(LIGHT / "light_resnet50.onnx", device).kernels


def convolutions(kernels: tuple[Kernel, ...], window: int, name: str) -> list[Kernel]:
    """Convolutions of that window and epilogue."""
    return [
        kernel
        for kernel in kernels
        if kernel.name == name
        and kernel.anchor is not None
        and kernel.loop_extents[kernel.anchor][4:6] == (window, window)
    ]


def is_strided(kernel: Kernel) -> bool:
    """Whether the input of the anchor is about twice as wide as its result."""
    assert kernel.anchor is not None
    padded = kernel.loop_extents[1][1]
    return padded > kernel.loop_extents[kernel.anchor][1] + 2


def test_plain_3x3_convolutions_of_both_are_one_class(
    resnet18: tuple[Kernel, ...], resnet50: tuple[Kernel, ...]
) -> None:
    ours, theirs = (convolutions(ks, 3, "conv2d_add_relu") for ks in (resnet18, resnet50))
    plain = [kernel for kernel in ours + theirs if not is_strided(kernel)]
    strided = [kernel for kernel in ours + theirs if is_strided(kernel)]
    assert len({kernel.key for kernel in plain}) >= 4
    assert len({kernel.key for kernel in strided}) >= 3
    assert len({kernel.class_key for kernel in plain}) == 1
    assert len({kernel.class_key for kernel in strided}) == 1
    assert plain[0].class_key != strided[0].class_key


def test_the_same_convolution_in_two_networks_is_one_kernel(
    resnet18: tuple[Kernel, ...], resnet50: tuple[Kernel, ...]
) -> None:
    ours, theirs = (convolutions(ks, 3, "conv2d_add_relu") for ks in (resnet18, resnet50))
    shared = {kernel.key for kernel in ours} & {kernel.key for kernel in theirs}
    assert len(shared) >= 4


def test_another_epilogue_is_another_class(resnet18: tuple[Kernel, ...]) -> None:
    (plain, *_), (with_skip, *_) = (
        convolutions(resnet18, 3, name) for name in ("conv2d_add_relu", "conv2d_add_add_relu")
    )
    assert plain.class_key != with_skip.class_key
    assert plain.anchor_key == with_skip.anchor_key


def test_all_convolutions_have_one_anchor(
    resnet18: tuple[Kernel, ...], resnet50: tuple[Kernel, ...]
) -> None:
    anchors = Counter(
        kernel.anchor_key for kernel in resnet18 + resnet50 if kernel.name.startswith("conv2d")
    )
    assert len(anchors) == 1
    assert anchors.total() > 30
