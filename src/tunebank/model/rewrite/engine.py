"""Applying rules to a graph until none has anything to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import onnx

from tunebank.model.rewrite.graph import Graph, plain_domain, subgraphs
from tunebank.model.rewrite.replacement import Replacement

Rule = Callable[[onnx.NodeProto, Graph, Replacement], bool]
"""Writes the nodes that take the place of a node, and says True; or leaves it, and says False."""

Rules = Mapping[tuple[str, str], Sequence[Rule]]
"""Rules by domain and type of operator; the first that says True decides."""


def apply_rules(graph: Graph, rules: Rules) -> bool:
    """One pass over the nodes; says whether any rule had something to do."""
    nodes: list[onnx.NodeProto] = []
    changed = False
    for node in graph.proto.node:
        replacement = _replaced(node, graph, rules)
        if replacement is None:
            nodes.append(node)
        else:
            nodes.extend(replacement)
            changed = True
    if changed:
        graph.replace_nodes(nodes)
    return changed


def drop_unused(graph: onnx.GraphProto) -> None:
    """Drops nodes and constants that no output depends on."""
    wanted = {value.name for value in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if not any(name in wanted for name in node.output):
            continue
        kept.append(node)
        wanted.update(name for name in node.input if name)
        for body in subgraphs(node):
            wanted.update(_mentioned(body))
    if len(kept) < len(graph.node):
        del graph.node[:]
        graph.node.extend(reversed(kept))
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name not in wanted:
            del graph.initializer[index]


def _replaced(node: onnx.NodeProto, graph: Graph, rules: Rules) -> list[onnx.NodeProto] | None:
    for rule in rules.get((plain_domain(node), node.op_type), ()):
        new = Replacement(graph, node)
        if rule(node, graph, new):
            return new.nodes
    return None


def _mentioned(graph: onnx.GraphProto) -> set[str]:
    """All names that occur in a subgraph: those from outside are among them."""
    names = {value.name for value in graph.output}
    for node in graph.node:
        names.update(node.input)
        for body in subgraphs(node):
            names |= _mentioned(body)
    return names
