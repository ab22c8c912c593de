"""What an operator's indices index, and how long that is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper, shape_inference

_FEW_VALUES = 1024
_AXIS_OPERATORS = ("Gather", "GatherElements", "ScatterElements", "Scatter")
_RECURRENT = ("RNN", "GRU", "LSTM")
_LENGTHS = 4  # position of `sequence_lens`
_EMBED_TABLES = {0: 2, 1: 4}  # EmbedLayerNormalization: token and segment ids, and their tables


class Extents:
    """Shapes of tensors in a model, and the values of small constants.

    Args:
        model: the model; of its weights only the shapes are looked at.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "Constant":
                self._weights.update(_constant(node))

    def of_indices(self, node: onnx.NodeProto) -> Iterator[tuple[int, int | None]]:
        """Positions of a node's operands that are indices, each with what it must stay below.

        The extent is None where it is not known.
        """
        kind = node.op_type
        if kind in _AXIS_OPERATORS:
            yield 1, self._extent(node.input[0], _integer(node, "axis", 0))
        elif kind in ("GatherND", "ScatterND"):
            yield 1, self._least_extent(node, _integer(node, "batch_dims", 0))
        elif kind == "OneHot":
            yield 0, self.largest_value(node.input[1])
        elif kind in _RECURRENT and len(node.input) > _LENGTHS:
            steps = self._extent(node.input[0], _integer(node, "layout", 0))
            yield _LENGTHS, None if steps is None else steps + 1
        elif kind == "EmbedLayerNormalization":
            for position, table in _EMBED_TABLES.items():
                if len(node.input) > table and node.input[table]:
                    yield position, self._extent(node.input[table], 0)

    def largest_value(self, name: str) -> int | None:
        """The largest of a small constant's values, if they are integers and can be read."""
        tensor = self._weights.get(name)
        if tensor is None or tensor.data_location == onnx.TensorProto.EXTERNAL:
            return None
        count = 1
        for extent in tensor.dims:
            count *= extent
        if not 1 <= count <= _FEW_VALUES:
            return None
        values = numpy_helper.to_array(tensor)
        return int(values.max()) if values.dtype.kind in "iu" else None

    def _extent(self, name: str, axis: int) -> int | None:
        shape = self._shape(name)
        return shape[axis] if shape is not None and -len(shape) <= axis < len(shape) else None

    def _least_extent(self, node: onnx.NodeProto, batch: int) -> int | None:
        """The least extent of the axes that the components of an index run over."""
        data, indices = self._shape(node.input[0]), self._shape(node.input[1])
        if data is None or not indices or indices[-1] is None:
            return None
        extents = [extent for extent in data[batch : batch + indices[-1]] if extent is not None]
        return min(extents) if len(extents) == indices[-1] else None

    def _shape(self, name: str) -> Sequence[int | None] | None:
        if name in self._weights:
            return [int(extent) for extent in self._weights[name].dims]
        return self._inferred.get(name)

    @cached_property
    def _inferred(self) -> dict[str, list[int | None]]:
        """Shapes that ONNX infers: from a copy of the graph in which weights are mere inputs."""
        try:
            inferred = shape_inference.infer_shapes(_without_weights(self._model), data_prop=True)
        except Exception:  # the inference raises what it happens to raise: less is known
            return {}
        graph = inferred.graph
        return {
            value.name: [dim.dim_value or None for dim in value.type.tensor_type.shape.dim]
            for value in (*graph.value_info, *graph.input, *graph.output)
            if value.type.tensor_type.HasField("shape")
        }


def _constant(node: onnx.NodeProto) -> dict[str, onnx.TensorProto]:
    """What a node of the kind `Constant` makes, if it is numbers."""
    name = node.output[0]
    for attribute in node.attribute:
        if attribute.name == "value":
            return {name: attribute.t}
        if attribute.name == "value_int":
            return {name: numpy_helper.from_array(np.array(attribute.i, np.int64), name)}
        if attribute.name == "value_ints":
            return {name: numpy_helper.from_array(np.array(attribute.ints, np.int64), name)}
    return {}


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its large weights as inputs: a copy with them might not fit a message."""
    graph = model.graph
    light = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    light.functions.extend(model.functions)
    light.graph.name = graph.name
    light.graph.node.extend(graph.node)
    light.graph.input.extend(graph.input)
    light.graph.output.extend(graph.output)
    light.graph.value_info.extend(graph.value_info)
    declared = {value.name for value in graph.input}
    for tensor in graph.initializer:
        if len(tensor.dims) <= 1 and tensor.data_location != onnx.TensorProto.EXTERNAL:
            light.graph.initializer.append(tensor)  # it may be a shape
        elif tensor.name not in declared:
            type_: Any = onnx.helper.make_tensor_value_info(
                tensor.name, tensor.data_type, list(tensor.dims)
            )
            light.graph.input.append(type_)
    return light


def _integer(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), default)
