"""Weights in files beside the model: mapped, not copied; nothing outside of its folder is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tunebank.errors import ModelError
from tunebank.model import Model

Read = Callable[..., Model]


def write(folder: Path, *, size: int = 64) -> Path:
    """Y = x·w, with w in `model.data`."""
    weight = np.random.default_rng(0).standard_normal((size, size)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="matmul")],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, size])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / "model.onnx"
    onnx.save(model, str(path), save_as_external_data=True, location="model.data", size_threshold=0)
    return path


def relocate(path: Path, **entries: str) -> None:
    """Changes where the model says that the weight lies."""
    model = onnx.load(str(path), load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        entry.value = entries.get(entry.key, entry.value)
    path.write_bytes(model.SerializeToString())


def test_external_weights_are_read(tmp_path: Path, read: Read) -> None:
    model = read(write(tmp_path))
    (kernel,) = model.kernels
    assert kernel.name.startswith("matmul")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.data", "model.onnx"]


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"location": "../secret"}, "outside of the model's folder"),
        ({"location": "inner/../../secret"}, "outside of the model's folder"),
        ({"location": "/etc/hostname"}, "outside of the model's folder"),
        ({"location": "link"}, "outside of the model's folder"),
        ({"location": ""}, "outside of the model's folder"),
        ({"location": "none.data"}, "is missing"),
        ({"length": str(2**40)}, "shorter than the model says"),
        ({"offset": str(2**60)}, "shorter than the model says"),
        ({"offset": "-4096"}, "shorter than the model says"),
        ({"length": "many"}, "no number"),
    ],
)
def test_odd_places_are_refused(
    tmp_path: Path, read: Read, entries: dict[str, str], said: str
) -> None:
    (tmp_path / "secret").write_bytes(bytes(64 * 64 * 4))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "secret")
    path = write(folder)
    relocate(path, **entries)
    with pytest.raises(ModelError) as caught:
        read(path)
    assert said in str(caught.value)
    assert "'w'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_large_weights_are_not_copied_about(tmp_path: Path, read: Read) -> None:
    """Three times the model's size and 1 GB is the most that reading may take."""
    path = write(tmp_path, size=7000)
    size = (tmp_path / "model.data").stat().st_size
    assert size == 196_000_000
    model = read(path)
    base = 500e6  # TVM, ONNX Runtime and Python themselves
    assert model.front_half.peak_bytes < base + 2.2 * size
