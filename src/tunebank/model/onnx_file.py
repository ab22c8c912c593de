"""Reading an ONNX file: checks, fixed shapes, and the canonical graph.

ONNX Runtime's basic graph optimiser does the canonicalisation that it does well: constants
folded, batch norm folded into convolutions, inference no-ops (dropout, identity) gone. What
it leaves and TVM takes badly is rewritten here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnxruntime
from google.protobuf.message import DecodeError
from onnx import helper

from tunebank.errors import ModelError
from tunebank.model.spec import TensorSpec

InputShapes = Mapping[str, Sequence[int]]

_MAX_EXTENT = 2**31 - 1

_TYPES = {
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.DOUBLE: "float64",
    onnx.TensorProto.INT64: "int64",
    onnx.TensorProto.INT32: "int32",
    onnx.TensorProto.INT8: "int8",
    onnx.TensorProto.UINT8: "uint8",
    onnx.TensorProto.BOOL: "bool",
}


@dataclass(frozen=True)
class OnnxModel:
    """A model read from a file, its graph canonical.

    Attributes:
        name: the file's stem.
        path: the file.
        proto: the canonical graph, weights inside.
        inputs: inputs in order; shapes are fixed.
        output_names: outputs in order.
    """

    name: str
    path: Path
    proto: onnx.ModelProto
    inputs: tuple[TensorSpec, ...]
    output_names: tuple[str, ...]


def read_onnx(path: Path, *, input_shapes: InputShapes | None = None) -> OnnxModel:
    """Reads an ONNX file and makes its graph canonical.

    Args:
        path: the file.
        input_shapes: shapes for inputs that the file leaves dynamic, by input name.

    Raises:
        ModelError: no such file, not ONNX, a broken graph, an operator that ONNX Runtime
            lacks, or a dynamic dimension without a shape.
    """
    proto = _load(path)
    initializers = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in initializers]
    _fix_shapes(path, inputs, dict(input_shapes or {}))
    canonical = _optimized(path, proto)
    _drop_former_weights(canonical.graph, {value.name for value in inputs})
    _split_sums(canonical.graph)
    specs = tuple(_spec(path, value) for value in inputs)
    return OnnxModel(
        path.stem, path, canonical, specs, tuple(value.name for value in canonical.graph.output)
    )


def _load(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        raise ModelError(f"{path}: no such file; give the path of an ONNX model")
    try:
        proto = onnx.load(str(path))
    except DecodeError as error:
        raise ModelError(f"{path}: not an ONNX model, or cut off; export it again") from error
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"{path}: can't be read: {reason}") from error
    if not proto.graph.node:
        raise ModelError(f"{path}: not an ONNX model, or one without operators; export it again")
    return proto


def _fix_shapes(
    path: Path, inputs: Sequence[onnx.ValueInfoProto], shapes: dict[str, Sequence[int]]
) -> None:
    """Writes the given shapes into the inputs; every dimension must be known afterwards."""
    names = [value.name for value in inputs]
    for name in shapes:
        if name not in names:
            raise ModelError(f"{path}: no input {name!r}; inputs: {', '.join(names)}")
    for value in inputs:
        if value.name in shapes:
            _fix_shape(path, value, shapes[value.name])
        elif not value.type.tensor_type.HasField("shape") and value.type.HasField("tensor_type"):
            raise ModelError(
                f"{path}: input {value.name!r} has no shape; "
                f"give one with --input-shape {value.name}:1,3,224,224"
            )
        elif any(dim.dim_value <= 0 for dim in value.type.tensor_type.shape.dim):
            raise ModelError(
                f"{path}: input {value.name!r} has a dynamic shape {_shape_text(value)}; "
                f"fix it with --input-shape {value.name}:{_shape_hint(value)}"
            )


def _fix_shape(path: Path, value: onnx.ValueInfoProto, given: Sequence[int]) -> None:
    """Writes a given shape into an input, where it agrees with what is known."""
    shape = value.type.tensor_type.shape
    if not value.type.tensor_type.HasField("shape"):
        shape.dim.extend(onnx.TensorShapeProto.Dimension() for _ in given)
    if len(given) != len(shape.dim):
        raise ModelError(
            f"{path}: input {value.name!r} has {len(shape.dim)} dimensions, "
            f"--input-shape gives {len(given)}"
        )
    if not all(1 <= extent <= _MAX_EXTENT for extent in given):
        raise ModelError(
            f"{path}: --input-shape {value.name}:{','.join(map(str, given))}: "
            f"a dimension is at least 1 and at most {_MAX_EXTENT}"
        )
    pairs = list(zip(shape.dim, given, strict=True))
    if any(dim.dim_value > 0 and dim.dim_value != extent for dim, extent in pairs):
        raise ModelError(
            f"{path}: input {value.name!r} is fixed to {_shape_text(value)}, "
            f"--input-shape gives {','.join(map(str, given))}"
        )
    for dim, extent in pairs:
        dim.dim_value = int(extent)


def _shape_text(value: onnx.ValueInfoProto) -> str:
    dims = value.type.tensor_type.shape.dim
    return "(" + ", ".join(dim.dim_param or str(dim.dim_value or "?") for dim in dims) + ")"


def _shape_hint(value: onnx.ValueInfoProto) -> str:
    return ",".join(str(max(dim.dim_value, 1)) for dim in value.type.tensor_type.shape.dim)


def _optimized(path: Path, proto: onnx.ModelProto) -> onnx.ModelProto:
    """The graph after ONNX Runtime's basic optimisations."""
    del proto.graph.value_info[:]  # shapes from before the inputs were fixed
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory(prefix="tunebank-") as folder:
        target = Path(folder) / "canonical.onnx"
        options.optimized_model_filepath = str(target)
        try:
            onnxruntime.InferenceSession(
                proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise ModelError(f"{path}: ONNX Runtime refuses the model: {_reason(error)}") from error
        return onnx.load(str(target))


def _reason(error: Exception) -> str:
    """ONNX Runtime's message without its prefix of codes."""
    text = " ".join(str(error).split())
    return text.split(" : ")[-1][:300]


def _drop_former_weights(graph: onnx.GraphProto, inputs: set[str]) -> None:
    """Drops graph inputs that were weights, as old files list them, and were folded away."""
    weights = {tensor.name for tensor in graph.initializer}
    kept = [value for value in graph.input if value.name in inputs or value.name in weights]
    del graph.input[:]
    graph.input.extend(kept)


def _split_sums(graph: onnx.GraphProto) -> None:
    """Sum(a, b, c) → Add(Add(a, b), c): TVM would stack the operands to sum over them."""
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type != "Sum" or node.domain not in ("", "ai.onnx") or len(node.input) < 2:
            nodes.append(node)
            continue
        total = node.input[0]
        for index, operand in enumerate(node.input[1:], start=1):
            last = index == len(node.input) - 1
            result = node.output[0] if last else f"{node.output[0]}_sum_{index}"
            nodes.append(helper.make_node("Add", [total, operand], [result], name=result))
            total = result
    del graph.node[:]
    graph.node.extend(nodes)


def _spec(path: Path, value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    if tensor.elem_type not in _TYPES:
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type)
        raise ModelError(f"{path}: input {value.name!r} is of unsupported type {kind}")
    shape = tuple(int(dim.dim_value) for dim in tensor.shape.dim)
    return TensorSpec(value.name, shape, _TYPES[tensor.elem_type])
