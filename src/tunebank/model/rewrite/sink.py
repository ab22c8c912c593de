"""Keeping a chain of one-dimensional operators in two dimensions.

Each widened convolution stands between an Unsqueeze and a Squeeze; so the layout that convolutions
want would end at each of them. A Squeeze sinks through elementwise operators until it meets the
next Unsqueeze, and both go:

    Conv ─Squeeze─ Relu ─Unsqueeze─ Conv     →     Conv ─ Relu ─ Conv

A constant on the way, of each channel (C, 1), gets the height too.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from tunebank.model.rewrite.graph import DOMAIN, Graph, plain_domain

_UNARY = frozenset(
    {"Relu", "LeakyRelu", "Sigmoid", "Tanh", "Erf", "Elu", "Selu", "HardSigmoid", "HardSwish"}
    | {"Softplus", "Softsign", "Mish", "Exp", "Log", "Sqrt", "Abs", "Neg", "Reciprocal", "Clip"}
    | {"Gelu", "Identity", "Cast", "BatchNormalization"}
)
_BINARY = frozenset({"Add", "Sub", "Mul", "Div", "Max", "Min", "Pow"})
_HEIGHT = 2


def sink_squeezes(graph: Graph) -> bool:
    """Moves Squeezes of the height past elementwise operators; says whether any was there."""
    squeezed: dict[str, str] = {}  # by name of a value (N, C, L), that of it as (N, C, 1, L)
    nodes: list[onnx.NodeProto] = []
    changed = False
    for node in graph.proto.node:
        moved = _moved(node, squeezed, graph)
        nodes.extend(moved or [node])
        changed = changed or bool(moved)
        if _is_of_height(node, "Squeeze", graph):
            squeezed[node.output[0]] = node.input[0]
    if changed:
        graph.replace_nodes(nodes)
    return changed


def _moved(node: onnx.NodeProto, squeezed: dict[str, str], graph: Graph) -> list[onnx.NodeProto]:
    """The node on values of two dimensions; empty if it stays as it is."""
    if plain_domain(node) != DOMAIN or not node.input:
        return []
    source = squeezed.get(node.input[0], "")
    if source and _is_of_height(node, "Unsqueeze", graph):
        return [helper.make_node("Identity", [source], [node.output[0]], node.name)]
    wide = _wide_inputs(node, squeezed, graph)
    if wide is None:
        return []
    widened = [
        _widened(wide, index, graph)
        for index, name in enumerate(wide)
        if name == node.input[index] and _has_height(name, graph)
    ]
    inner = graph.fresh(f"{node.output[0]}/wide")
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    del copy.input[:], copy.output[:]
    copy.input.extend(wide)
    copy.output.append(inner)
    name = graph.fresh(f"{node.name}/Squeeze")
    squeezed[node.output[0]] = inner
    ends = [inner, _axes(_HEIGHT, graph)]
    return [*widened, copy, helper.make_node("Squeeze", ends, [node.output[0]], name)]


def _axes(axis: int, graph: Graph) -> str:
    name = graph.fresh("height")
    graph.add_constant(np.array([axis], np.int64), name)
    return name


def _widened(inputs: list[str], index: int, graph: Graph) -> onnx.NodeProto:
    """Puts a constant with the height, (C, 1) as (C, 1, 1), in the place of an input."""
    name = inputs[index]
    inputs[index] = graph.fresh(f"{name}/wide")
    ends = [name, _axes((graph.rank(name) or 2) - 1, graph)]
    return helper.make_node("Unsqueeze", ends, [inputs[index]], graph.fresh(f"{name}/Unsqueeze"))


def _has_height(name: str, graph: Graph) -> bool:
    """Whether the height stands between a constant's dimensions, as in that of (C, L)."""
    return graph.is_initializer(name) and graph.rank(name) in (2, 3)


def _wide_inputs(node: onnx.NodeProto, squeezed: dict[str, str], graph: Graph) -> list[str] | None:
    """The inputs of an elementwise node as (N, C, 1, L); None if it is another one."""
    if node.op_type in _UNARY and node.input[0] in squeezed and len(node.output) == 1:
        return [squeezed[node.input[0]], *node.input[1:]]
    if node.op_type == "Concat" and helper.get_node_attr_value(node, "axis") == 1:
        parts = [squeezed.get(name, "") for name in node.input]
        return parts if all(parts) else None
    if node.op_type not in _BINARY or len(node.input) != 2:
        return None
    wide = [
        squeezed.get(name, name if _is_single(name, graph) or _has_height(name, graph) else "")
        for name in node.input
    ]
    return wide if all(wide) and any(name in squeezed for name in node.input) else None


def _is_single(name: str, graph: Graph) -> bool:
    """Whether a value is one number, which is broadcast to any shape."""
    shape = graph.shape(name)
    return shape is not None and len(shape) <= 3 and all(extent == 1 for extent in shape)


def _is_of_height(node: onnx.NodeProto, op_type: str, graph: Graph) -> bool:
    if node.op_type != op_type or len(node.input) < 2:
        return False
    wide = node.input[0] if op_type == "Squeeze" else node.output[0]
    axes = graph.constant(node.input[1])
    return graph.rank(wide) == 4 and axes is not None and axes.tolist() == [_HEIGHT]
