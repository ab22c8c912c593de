"""An ONNX graph seen with its shapes, data types and small constants.

Weights may lie in another file: their values are never read here. What the rules need to know of
them, shape and data type, stands in the graph.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tunebank.errors import ModelError

Shape = tuple[int, ...]

DOMAIN = ""
MICROSOFT = "com.microsoft"
ML = "ai.onnx.ml"

SMALL_ELEMENTS = 1 << 14
"""Constants of at most so many elements are shapes, axes, scales, bounds: rules read them."""

_MIN_IR_VERSION = 8  # before 4, an initializer has to be a graph input too


class Graph:
    """A model's main graph with what is known of its values.

    The model is changed in place: `add_constant` appends to it, `replace_nodes` sets its nodes.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        model.ir_version = max(model.ir_version, _MIN_IR_VERSION)
        self.model = model
        self.proto = model.graph
        self.opset = opset_of(model)
        self._initializers = {tensor.name: tensor for tensor in self.proto.initializer}
        self._types = _value_types(model)
        self._uses = Counter(_used_names(self.proto))
        self._consumers = _consumers(self.proto)
        self._producers = {name: node for node in self.proto.node for name in node.output}
        self._names = self._all_names()
        self._arrays: dict[str, np.ndarray] = {}
        self._retyped: set[str] = set()
        self._numbers: Counter[str] = Counter()

    def shape(self, name: str) -> Shape | None:
        """The extents of a value; None if one of them isn't known."""
        kind = self._types.get(name)
        if kind is None or not kind.tensor_type.HasField("shape"):
            return None
        dims = kind.tensor_type.shape.dim
        if not all(dim.HasField("dim_value") for dim in dims):
            return None
        return tuple(int(dim.dim_value) for dim in dims)

    def known_shape(self, name: str, node: onnx.NodeProto) -> Shape:
        """The extents of a value that a rule can't do without.

        Raises:
            ModelError: they aren't known.
        """
        shape = self.shape(name)
        if shape is None:
            raise ModelError(
                f"{described(node)}: the shape of {name!r} isn't known before the model runs; "
                "export the model with fixed shapes"
            )
        return shape

    def rank(self, name: str) -> int | None:
        """How many dimensions a value has; None if unknown."""
        kind = self._types.get(name)
        if kind is None or not kind.tensor_type.HasField("shape"):
            return None
        return len(kind.tensor_type.shape.dim)

    def elements(self, name: str) -> int:
        """How many elements a value has; 0 if unknown."""
        shape = self.shape(name)
        return 0 if shape is None else math.prod(shape)

    def dtype(self, name: str) -> int:
        """The data type of a value as `TensorProto.DataType`; 0 if unknown or no tensor."""
        kind = self._types.get(name)
        return 0 if kind is None else int(kind.tensor_type.elem_type)

    def type(self, name: str) -> onnx.TypeProto | None:
        """The type of a value, as far as it is known."""
        return self._types.get(name)

    def constant(self, name: str) -> np.ndarray | None:
        """The value of a small constant that stands in the graph itself; None for all else."""
        tensor = self._initializers.get(name)
        if tensor is None or not _is_readable(tensor):
            return None
        if name not in self._arrays:
            self._arrays[name] = numpy_helper.to_array(tensor)
        return self._arrays[name]

    def is_initializer(self, name: str) -> bool:
        """Whether the value is a weight or constant of the graph."""
        return name in self._initializers

    def initializer(self, name: str) -> TensorProto | None:
        """The tensor of a weight or constant."""
        return self._initializers.get(name)

    def uses(self, name: str) -> int:
        """How often a value is used, graph outputs included."""
        return self._uses[name]

    def consumers(self, name: str) -> list[onnx.NodeProto]:
        """The nodes that take a value; what subgraphs take counts in `uses` alone."""
        return self._consumers.get(name, [])

    def producer(self, name: str) -> onnx.NodeProto | None:
        """The node that gives a value; None for inputs and constants."""
        return self._producers.get(name)

    def is_wanted(self, node: onnx.NodeProto, index: int) -> bool:
        """Whether the node's output of this number exists and is used."""
        return (
            len(node.output) > index
            and node.output[index] != ""
            and self.uses(node.output[index]) > 0
        )

    def retype(self, name: str) -> None:
        """Forgets the type of a value that a rule gives another one."""
        self._retyped.add(name)

    def fresh(self, stem: str) -> str:
        """A name that no value of the graph has."""
        name = stem
        while name in self._names:
            # Counted on, so that a thousand names of one stem don't take a million looks.
            self._numbers[stem] += 1
            name = f"{stem}_{self._numbers[stem]}"
        self._names.add(name)
        return name

    def add_constant(self, array: np.ndarray, name: str) -> None:
        """Adds a constant under a name that is free."""
        tensor = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
        self.proto.initializer.append(tensor)
        self._names.add(name)
        self._initializers[name] = self.proto.initializer[-1]
        self._arrays[name] = array
        self._types[name] = helper.make_tensor_type_proto(tensor.data_type, array.shape)

    def reshaped_initializer(self, name: str, dims: Sequence[int]) -> str:
        """Gives a weight that is used once another shape; its values keep their order."""
        tensor = self._initializers[name]
        del tensor.dims[:]
        tensor.dims.extend(dims)
        self._types[name] = helper.make_tensor_type_proto(tensor.data_type, dims)
        self._arrays.pop(name, None)
        return name

    def adopt_initializer(self, tensor: TensorProto) -> str:
        """Adds a constant of a subgraph; returns the name that it has here."""
        copy = self.proto.initializer.add()
        copy.CopyFrom(tensor)
        copy.name = self.fresh(tensor.name)
        self._initializers[copy.name] = copy
        self._types[copy.name] = helper.make_tensor_type_proto(copy.data_type, copy.dims)
        return str(copy.name)

    def replace_nodes(self, nodes: Sequence[onnx.NodeProto]) -> None:
        """Sets the nodes of the graph, in an order in which each value comes before its use."""
        if self._retyped:
            kept = [info for info in self.proto.value_info if info.name not in self._retyped]
            del self.proto.value_info[:]
            self.proto.value_info.extend(kept)
        del self.proto.node[:]
        self.proto.node.extend(nodes)

    def _all_names(self) -> set[str]:
        names = set(self._types) | set(self._uses) | set(self._initializers)
        names.update(name for node in self.proto.node for name in node.output)
        return names


def opset_of(model: onnx.ModelProto, domain: str = DOMAIN) -> int:
    """The version of a domain's operators that the model uses; 1 if it names none."""
    return max(
        (int(entry.version) for entry in model.opset_import if plain_domain(entry) == domain),
        default=1,
    )


def plain_domain(entry: onnx.NodeProto | onnx.OperatorSetIdProto) -> str:
    """The domain of a node; the default domain has two spellings."""
    return DOMAIN if entry.domain == "ai.onnx" else str(entry.domain)


def described(node: onnx.NodeProto) -> str:
    """How messages name a node: `operator LSTM (node 'encoder/rnn')`."""
    name = node.name or (node.output[0] if node.output else "")
    domain = plain_domain(node)
    operator = f"{domain}.{node.op_type}" if domain else node.op_type
    return f"operator {operator} (node {name!r})"


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """The attributes that the node states; texts decoded, lists as lists."""
    values: dict[str, Any] = {}
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            value = value.decode()
        elif attribute.type == onnx.AttributeProto.STRINGS:
            value = [text.decode() for text in value]
        values[attribute.name] = value
    return values


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that a control-flow node has as attributes."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            yield from attribute.graphs


def outer_names(graph: onnx.GraphProto) -> Iterator[str]:
    """Names of values that a graph takes from around it, with repetitions."""
    own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    own.update(name for node in graph.node for name in node.output)
    for name in _used_names(graph):
        if name not in own:
            yield name


def _used_names(graph: onnx.GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield from (name for name in node.input if name)
        for body in subgraphs(node):
            yield from outer_names(body)
    yield from (value.name for value in graph.output)


def _consumers(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    consumers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            if name:
                consumers.setdefault(name, []).append(node)
    return consumers


def _is_readable(tensor: TensorProto) -> bool:
    if tensor.data_location == TensorProto.EXTERNAL:
        return False
    return bool(math.prod(tensor.dims) <= SMALL_ELEMENTS)


def _value_types(model: onnx.ModelProto) -> dict[str, onnx.TypeProto]:
    """Types of all values, inferred on a graph in which weights are inputs."""
    skeleton = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    graph, full = skeleton.graph, model.graph
    skeleton.functions.extend(model.functions)
    graph.name = full.name or "graph"
    graph.node.extend(full.node)
    graph.output.extend(full.output)
    graph.value_info.extend(full.value_info)
    weights = {tensor.name for tensor in full.initializer}
    graph.input.extend(value for value in full.input if value.name not in weights)
    types: dict[str, onnx.TypeProto] = {}
    for tensor in full.initializer:
        types[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
        if _is_readable(tensor):
            graph.initializer.append(tensor)
        else:
            graph.input.append(helper.make_value_info(tensor.name, types[tensor.name]))
    inferred = onnx.shape_inference.infer_shapes(skeleton, data_prop=True).graph
    for value in (*inferred.input, *inferred.output, *inferred.value_info):
        types.setdefault(value.name, value.type)
    return types
