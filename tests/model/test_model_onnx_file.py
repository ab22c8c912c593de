"""Reading ONNX files: one-line errors that name the remedy, fixed shapes, canonical graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from tunebank.errors import ModelError
from tunebank.model import Model, TensorSpec

Shape = Sequence[int | str] | None
Read = Callable[..., Model]
ErrorOf = Callable[..., str]


def write(
    path: Path,
    operator: str = "Relu",
    *,
    shape: Shape = (1, 4),
    domain: str = "",
    dtype: int = TensorProto.FLOAT,
    inputs: Sequence[str] = ("x",),
    **attributes: Any,
) -> Path:
    """A model of one operator."""
    node = helper.make_node(operator, list(inputs), ["y"], domain=domain, **attributes)
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info(name, dtype, shape) for name in dict.fromkeys(inputs)],
        [helper.make_tensor_value_info("y", dtype, None)],
    )
    opsets = [helper.make_opsetid("", 17)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
    return path


@pytest.fixture
def error_of(read: Read) -> Callable[..., str]:
    """The one line that reading a file ends with."""

    def error(path: Path, **options: Any) -> str:
        with pytest.raises(ModelError) as caught:
            read(path, **options)
        message = str(caught.value)
        assert str(path) in message
        assert "\n" not in message
        return message

    return error


def test_files_that_are_no_models(tmp_path: Path, error_of: ErrorOf) -> None:
    assert "no such file" in error_of(tmp_path / "none.onnx")
    assert "no such file" in error_of(tmp_path)
    path = tmp_path / "odd.onnx"
    for content in (b"", b"hello world\n" * 50, b"\x00" * 99, b"\xff" * 99):
        path.write_bytes(content)
        assert "export it again" in error_of(path)


def test_a_dynamic_dimension_needs_a_shape(tmp_path: Path, read: Read, error_of: ErrorOf) -> None:
    path = write(tmp_path / "m.onnx", shape=("batch", 3, 4))
    message = error_of(path)
    assert "(batch, 3, 4)" in message
    assert "--input-shape x:1,3,4" in message
    assert read(path, input_shapes={"x": (2, 3, 4)}).inputs == (
        TensorSpec("x", (2, 3, 4), "float32"),
    )


def test_an_input_without_any_shape(tmp_path: Path, read: Read, error_of: ErrorOf) -> None:
    path = write(tmp_path / "m.onnx", shape=None)
    assert "--input-shape x:" in error_of(path)
    assert read(path, input_shapes={"x": (2, 3)}).inputs[0].shape == (2, 3)


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        ({"z": (1, 4)}, "no input 'z'; inputs: x"),
        ({"x": (2, 3)}, "has 3 dimensions, --input-shape gives 2"),
        ({"x": (2, 3, 5)}, r"fixed to \(batch, 3, 4\)"),
        ({"x": (0, 3, 4)}, "at least 1"),
        ({"x": (-1, 3, 4)}, "at least 1"),
        ({"x": (2**70, 3, 4)}, "at most"),
    ],
)
def test_shapes_that_do_not_fit(
    tmp_path: Path, read: Read, shapes: dict[str, tuple[int, ...]], reason: str
) -> None:
    path = write(tmp_path / "m.onnx", shape=("batch", 3, 4))
    with pytest.raises(ModelError, match=reason):
        read(path, input_shapes=shapes)


def test_operators_that_are_not_known_are_named(tmp_path: Path, error_of: ErrorOf) -> None:
    path = tmp_path / "m.onnx"
    assert "Frobnicate" in error_of(write(path, "Frobnicate"))
    assert "com.acme" in error_of(write(path, "Frobnicate", domain="com.acme"))


def test_an_operator_that_tvm_lacks_is_named(tmp_path: Path, error_of: ErrorOf) -> None:
    message = error_of(write(tmp_path / "m.onnx", "Det", shape=(1, 4, 4)))
    assert "TVM lacks an operator" in message
    assert "Det" in message


def test_types_that_are_not_supported(tmp_path: Path, error_of: ErrorOf) -> None:
    path = write(tmp_path / "m.onnx", "Identity", dtype=TensorProto.STRING)
    assert "STRING" in error_of(path)
