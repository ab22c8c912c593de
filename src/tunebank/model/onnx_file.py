"""Reading an ONNX file: its structure, checked; its weights stay in files.

A model's weights are most of its bytes, and nothing that is done to a graph needs them in a
protobuf. Those within the file are moved out at once, into one file that is mapped and never
copied about; those in files beside it stay where they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper

from tunebank.errors import ModelError
from tunebank.model.spec import TensorSpec

INLINE_BYTES = 1 << 14
"""Tensors of so many bytes stay in the graph: shapes, axes, bounds, zero points of channels,
whatever rules and importers read."""
_PAGE_BYTES = 4096
_FIRST_WITHOUT_WEIGHT_INPUTS = 4  # version of ONNX's intermediate representation

TYPES = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
    TensorProto.DOUBLE: "float64",
    TensorProto.INT64: "int64",
    TensorProto.INT32: "int32",
    TensorProto.INT16: "int16",
    TensorProto.INT8: "int8",
    TensorProto.UINT64: "uint64",
    TensorProto.UINT32: "uint32",
    TensorProto.UINT16: "uint16",
    TensorProto.UINT8: "uint8",
    TensorProto.BOOL: "bool",
}


def read_structure(path: Path) -> onnx.ModelProto:
    """The graph of an ONNX file without the content of external files.

    Raises:
        ModelError: no such file, not ONNX, or it names data outside of its folder.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file; give the path of an ONNX model")
    try:
        proto = onnx.load(str(path), load_external_data=False)
    except DecodeError as error:
        raise ModelError(f"{path}: not an ONNX model, or cut off; export it again") from error
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"{path}: can't be read: {reason}") from error
    if not proto.graph.node:
        raise ModelError(f"{path}: not an ONNX model, or one without operators; export it again")
    for tensor in _tensors(proto.graph):
        if is_external(tensor):
            _check_external(path, tensor)
    return proto


def graph_inputs(proto: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs without the weights, which old files list among them."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    return [value for value in proto.graph.input if value.name not in weights]


def check_inputs(path: Path, proto: onnx.ModelProto) -> None:
    """Checks that the inputs are of types that numpy can feed.

    Raises:
        ModelError: one is not.
    """
    for value in graph_inputs(proto):
        if not value.type.HasField("tensor_type"):
            kind = value.type.WhichOneof("value") or "unknown type"
            raise ModelError(f"{path}: input {value.name!r} is no tensor but a {kind}")
        number = value.type.tensor_type.elem_type
        if number not in TYPES:
            known = number in TensorProto.DataType.values()
            name = TensorProto.DataType.Name(number) if known else str(number)
            raise ModelError(f"{path}: input {value.name!r} is of unsupported type {name}")


def spec_of(value: onnx.ValueInfoProto, limit: int | None) -> TensorSpec:
    """What an input whose shape is known is."""
    tensor = value.type.tensor_type
    shape = tuple(int(dim.dim_value) for dim in tensor.shape.dim)
    return TensorSpec(value.name, shape, TYPES[tensor.elem_type], limit)


def has_external_data(proto: onnx.ModelProto) -> bool:
    """Whether weights lie in files beside the model."""
    return any(is_external(tensor) for tensor in _tensors(proto.graph))


def is_external(tensor: TensorProto) -> bool:
    """Whether a tensor's content lies in a file of its own."""
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def external_array(tensor: TensorProto, folder: Path) -> npt.NDArray[np.uint8]:
    """The bytes of an external tensor, mapped."""
    entries = _entries(tensor)
    file = folder / entries["location"]
    offset = int(entries.get("offset") or 0)
    length = int(entries.get("length") or file.stat().st_size - offset)
    if length == 0:
        return np.empty(0, np.uint8)
    return np.memmap(file, np.uint8, "r", offset, (length,))


def move_weights_out(proto: onnx.ModelProto, folder: Path, file: Path) -> onnx.ModelProto:
    """The graph with the content of large initializers moved into one file.

    Args:
        proto: the graph; of no use afterwards. What is taken out of a protobuf is freed with all
            of it only, so that a new one is made of what is left.
        folder: where the data lies that is external already; it is copied.
        file: the file to write.
    """
    with file.open("wb") as stream:
        for tensor in proto.graph.initializer:
            data = _content(tensor, folder)
            if data is None:
                continue
            stream.write(bytes(-stream.tell() % _PAGE_BYTES))  # what is mapped starts at a page
            place = {"location": file.name, "offset": str(stream.tell()), "length": str(len(data))}
            stream.write(data)
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            del tensor.external_data[:]
            for key, value in place.items():
                tensor.external_data.add(key=key, value=value)
    slim = onnx.ModelProto()
    slim.CopyFrom(proto)
    return slim


def _content(tensor: TensorProto, folder: Path) -> bytes | memoryview | None:
    """A tensor's bytes if they are to be moved, else None."""
    if is_external(tensor):
        return external_array(tensor, folder).data
    if tensor.data_type not in TYPES:
        return None
    if not tensor.HasField("raw_data"):
        tensor.CopyFrom(_raw(tensor))
    return tensor.raw_data if len(tensor.raw_data) > INLINE_BYTES else None


def has_bfloat16(proto: onnx.ModelProto) -> bool:
    """Whether a model computes in bfloat16."""
    tensors = (tensor.data_type for tensor in _tensors(proto.graph))
    values = (*proto.graph.input, *proto.graph.output)
    types = (value.type.tensor_type.elem_type for value in values)
    casts = (
        attribute.i
        for node in proto.graph.node
        for attribute in node.attribute
        if attribute.name == "to"
    )
    return TensorProto.BFLOAT16 in (*tensors, *types, *casts)


def _raw(tensor: TensorProto) -> TensorProto:
    """The same tensor with its values as raw bytes."""
    return numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name)


def _tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """Every tensor that a graph holds, those of its sub-graphs too."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t
            yield from attribute.tensors
            graphs = [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else []
            for one in (*graphs, *attribute.graphs):
                yield from _tensors(one)


def _entries(tensor: TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _check_external(path: Path, tensor: TensorProto) -> None:
    """Refuses data that lies outside of the model's folder, or not in its file."""
    entries = _entries(tensor)
    location = entries.get("location", "")
    folder = path.absolute().parent.resolve()
    file = (folder / location).resolve()
    where = f"{path}: tensor {tensor.name!r}: external data {location!r}"
    if not location or Path(location).is_absolute() or not file.is_relative_to(folder):
        raise ModelError(f"{where} is outside of the model's folder, and is not read")
    if not file.is_file():
        raise ModelError(f"{where} is missing; put it beside the model")
    try:
        offset, length = (int(entries.get(key) or 0) for key in ("offset", "length"))
    except ValueError as error:
        raise ModelError(
            f"{where} has a place that is no number; export the model again"
        ) from error
    if min(offset, length) < 0 or offset + length > file.stat().st_size:
        raise ModelError(f"{where} is shorter than the model says; copy it again")


def fix_shapes(proto: onnx.ModelProto, shapes: dict[str, tuple[int, ...]]) -> None:
    """Writes shapes into a graph's inputs; what followed from others is dropped.

    Weights are no inputs any more: a value that a caller might replace can't be folded.
    """
    inputs = graph_inputs(proto)
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)
    proto.ir_version = max(proto.ir_version, _FIRST_WITHOUT_WEIGHT_INPUTS)
    for value in proto.graph.input:
        tensor = value.type.tensor_type
        fixed = helper.make_tensor_type_proto(tensor.elem_type, shapes[value.name])
        value.type.CopyFrom(fixed)
    del proto.graph.value_info[:]
    for value in proto.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
