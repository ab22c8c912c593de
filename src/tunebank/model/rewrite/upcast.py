"""Graphs in half precision as graphs that compute in float32.

    x: float16 ─▶ Cast(float32) ─▶ … float32 … ─▶ Cast(float16) ─▶ y: float16

On a CPU that is right for float16 too: most have no arithmetic in it, and ONNX Runtime's CPU
provider puts such casts around its operators as well. Sums are then accumulated in float32, so
that results are nearer to the exact ones. In bfloat16 ONNX Runtime's CPU provider has hardly any
operator: this comes before it.

Weights are cast by a node, since their values may lie in another file.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import onnx.inliner
from onnx import TensorProto, numpy_helper

from tunebank.model.rewrite.graph import subgraphs

_HALF = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})

# Attributes that name a data type of a result. `stash_type` and `softmax_precision`, types of
# what is computed between, are among them.
_TYPE_ATTRIBUTES = frozenset(
    {"to", "dtype", "output_dtype", "output_datatype", "stash_type", "softmax_precision"}
    | {"precision"}
)


def upcast(model: onnx.ModelProto) -> onnx.ModelProto:
    """Makes a model compute in float32 where it says float16 or bfloat16.

    Its inputs and outputs keep their data types. A model without half precision stays as it is.

    Args:
        model: the model, changed in place unless it has functions of its own.
    """
    if not _has_half(model):
        return model
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    graph = model.graph
    _upcast_body(graph)
    casts = [_cast_weight(tensor) for tensor in graph.initializer if tensor.data_type in _HALF]
    casts += _cast_inputs(graph)
    outputs = _cast_outputs(graph)
    nodes = [*casts, *graph.node, *outputs]
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def _has_half(model: onnx.ModelProto) -> bool:
    functions = (node for function in model.functions for node in function.node)
    return _graph_has_half(model.graph) or any(_node_has_half(node) for node in functions)


def _graph_has_half(graph: onnx.GraphProto) -> bool:
    values = (*graph.input, *graph.output, *graph.value_info)
    return (
        any(tensor.data_type in _HALF for tensor in graph.initializer)
        or any(kind.elem_type in _HALF for value in values for kind in _tensor_types(value.type))
        or any(_node_has_half(node) for node in graph.node)
    )


def _node_has_half(node: onnx.NodeProto) -> bool:
    for attribute in node.attribute:
        if attribute.name in _TYPE_ATTRIBUTES and attribute.i in _HALF:
            return True
        if attribute.HasField("t") and attribute.t.data_type in _HALF:
            return True
    return any(_graph_has_half(body) for body in subgraphs(node))


def _tensor_types(kind: onnx.TypeProto) -> Iterator[onnx.TypeProto.Tensor]:
    """The tensors in a type, be it one, a sequence of them, or an optional one."""
    if kind.HasField("tensor_type"):
        yield kind.tensor_type
    elif kind.HasField("sequence_type"):
        yield from _tensor_types(kind.sequence_type.elem_type)
    elif kind.HasField("optional_type"):
        yield from _tensor_types(kind.optional_type.elem_type)


def _upcast_body(graph: onnx.GraphProto) -> None:
    """Types that nodes name, and what is known of values; subgraphs whole."""
    del graph.value_info[:]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in _TYPE_ATTRIBUTES and attribute.i in _HALF:
                attribute.i = TensorProto.FLOAT
            if attribute.HasField("t") and attribute.t.data_type in _HALF:
                _widen_inline(attribute.t)
        for body in subgraphs(node):
            _upcast_body(body)
            _upcast_borders(body)


def _upcast_borders(body: onnx.GraphProto) -> None:
    """Inputs, outputs and constants of a subgraph, which are values of the graph around it."""
    for value in (*body.input, *body.output):
        for kind in _tensor_types(value.type):
            if kind.elem_type in _HALF:
                kind.elem_type = TensorProto.FLOAT
    casts = []
    for tensor in body.initializer:
        if tensor.data_type in _HALF:
            casts.append(_cast_weight(tensor))
    nodes = [*casts, *body.node]
    del body.node[:]
    body.node.extend(nodes)


def _widen_inline(tensor: TensorProto) -> None:
    array = numpy_helper.to_array(tensor).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _cast_weight(tensor: TensorProto) -> onnx.NodeProto:
    """Names a weight anew, and casts it to its old name."""
    name = str(tensor.name)
    tensor.name = f"{name}/half"
    return _cast(tensor.name, name, TensorProto.FLOAT)


def _cast_inputs(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Casts behind the inputs: these keep their names, and all else takes the cast value."""
    halves = {v.name for v in graph.input if v.type.tensor_type.elem_type in _HALF}
    halves -= {f"{node.output[0]}" for node in graph.node}
    weights = {tensor.name.removesuffix("/half") for tensor in graph.initializer}
    renamed = {name: f"{name}/float" for name in halves - weights}
    for value in list(graph.input):
        if value.name in halves & weights:  # old files list weights among the inputs
            graph.input.remove(value)
    _rename(graph, renamed)
    return [_cast(name, other, TensorProto.FLOAT) for name, other in renamed.items()]


def _rename(graph: onnx.GraphProto, renamed: dict[str, str]) -> None:
    for node in graph.node:
        inputs = [renamed.get(name, name) for name in node.input]
        del node.input[:]
        node.input.extend(inputs)
        for body in subgraphs(node):
            _rename(body, renamed)
            for value in body.output:
                value.name = renamed.get(value.name, value.name)


def _cast_outputs(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Casts before the outputs, which keep their names."""
    casts = []
    renamed = {}
    inputs = {value.name for value in graph.input}
    for value in graph.output:
        kind = value.type.tensor_type.elem_type
        if kind in _HALF and value.name not in inputs:
            renamed[value.name] = f"{value.name}/float"
            casts.append(_cast(renamed[value.name], value.name, kind))
    for node in graph.node:
        outputs = [renamed.get(name, name) for name in node.output]
        del node.output[:]
        node.output.extend(outputs)
    _rename(graph, renamed)
    return casts


def _cast(source: str, target: str, kind: int) -> onnx.NodeProto:
    return onnx.helper.make_node("Cast", [source], [target], name=target, to=kind)
