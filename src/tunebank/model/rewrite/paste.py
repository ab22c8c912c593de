"""Copying the nodes of a body - of a function, a branch, a loop - to where it is called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from tunebank.model.rewrite.graph import Graph, subgraphs
from tunebank.model.rewrite.replacement import Replacement

Attributes = Mapping[str, onnx.AttributeProto]


def paste_graph(
    body: onnx.GraphProto, names: dict[str, str], graph: Graph, new: Replacement
) -> list[str]:
    """Appends a subgraph's nodes; returns what its outputs are called now.

    Args:
        body: the subgraph; what it takes from around it keeps its name.
        names: what its inputs are called outside. All other names become fresh ones.
        graph: the graph that it stands in.
        new: takes the nodes.
    """
    names = dict(names)
    for tensor in body.initializer:
        names[tensor.name] = graph.adopt_initializer(tensor)
    paste_nodes(body.node, names, graph, new)
    return [names.get(value.name, value.name) for value in body.output]


def paste_nodes(
    nodes: Sequence[onnx.NodeProto],
    names: dict[str, str],
    graph: Graph,
    new: Replacement,
    attributes: Attributes | None = None,
) -> None:
    """Appends copies of nodes; `names` is read for their inputs, and gets their outputs."""
    for node in nodes:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        del copy.input[:], copy.output[:]
        copy.input.extend(names.get(name, name) for name in node.input)
        for name in node.output:
            if name and name not in names:
                names[name] = graph.fresh(new.stem + "/" + name)
            copy.output.append(names[name] if name else "")
        copy.name = graph.fresh(f"{new.stem}/{node.name or node.op_type}")
        if attributes is not None:
            _bind_attributes(copy, attributes)
        for body in subgraphs(copy):
            _rename_outer(body, names)
        new.nodes.append(copy)


def _bind_attributes(node: onnx.NodeProto, attributes: Attributes) -> None:
    """Puts the caller's attributes where a function's body refers to them; else drops them."""
    kept = []
    for attribute in node.attribute:
        if not attribute.ref_attr_name:
            for body in _bodies(attribute):
                for inner in body.node:
                    _bind_attributes(inner, attributes)
            kept.append(attribute)
        elif attribute.ref_attr_name in attributes:
            bound = onnx.AttributeProto()
            bound.CopyFrom(attributes[attribute.ref_attr_name])
            bound.name = attribute.name
            kept.append(bound)
    del node.attribute[:]
    node.attribute.extend(kept)


def _bodies(attribute: onnx.AttributeProto) -> list[onnx.GraphProto]:
    if attribute.type == onnx.AttributeProto.GRAPH:
        return [attribute.g]
    return list(attribute.graphs)


def _rename_outer(body: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Renames what a nested subgraph takes from around it."""
    own = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
    own.update(name for node in body.node for name in node.output)
    outer = {name: other for name, other in names.items() if name not in own}
    for node in body.node:
        renamed = [outer.get(name, name) for name in node.input]
        del node.input[:]
        node.input.extend(renamed)
        for inner in subgraphs(node):
            _rename_outer(inner, outer)
    for value in body.output:
        value.name = outer.get(value.name, value.name)
