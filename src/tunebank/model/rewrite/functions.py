"""Operators that ONNX itself defines by others: their function bodies in their place.

    y = Celu(x)     →     y = Add(Max(0, x), Min(0, ...))

A body is taken in the version that fits the model's operator set. Some depend on the call, on
which inputs are given and of what type: these are built for it.
"""

from __future__ import annotations

import onnx
from onnx import defs

from tunebank.model.rewrite.graph import DOMAIN, Graph, opset_of, plain_domain
from tunebank.model.rewrite.paste import paste_nodes
from tunebank.model.rewrite.replacement import Replacement


def expand_function(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """Puts the function body of an operator in its place, if it has one."""
    schema = _schema(node, graph)
    if schema is None:
        return False
    body = _body(schema, node, graph)
    if body is None:
        return False
    names = dict.fromkeys(body.input, "")
    names.update(zip(body.input, node.input, strict=False))
    names.update(
        (formal, actual) for formal, actual in zip(body.output, node.output, strict=False) if actual
    )
    paste_nodes(body.node, names, graph, new, _attributes(schema, node))
    return True


def _schema(node: onnx.NodeProto, graph: Graph) -> defs.OpSchema | None:
    domain = plain_domain(node)
    try:
        return defs.get_schema(node.op_type, opset_of(graph.model, domain), domain)
    except defs.SchemaError:
        return None


def _body(schema: defs.OpSchema, node: onnx.NodeProto, graph: Graph) -> onnx.FunctionProto | None:
    """The function body of the greatest version that the model's operator set knows."""
    text = None
    limit = graph.opset if plain_domain(node) == DOMAIN else opset_of(graph.model, node.domain)
    if versions := _known(schema.function_opset_versions, limit):
        text = schema.get_function_with_opset_version(versions[-1])
    elif versions := _known(schema.context_dependent_function_opset_versions, limit):
        types = [_type(graph, name).SerializeToString() for name in node.input]
        text = schema.get_context_dependent_function_with_opset_version(
            versions[-1], node.SerializeToString(), types
        )
    if not text:
        return None
    body = onnx.FunctionProto()
    body.ParseFromString(text)
    needed = [entry for entry in body.opset_import if plain_domain(entry) == DOMAIN]
    return body if body.node and all(entry.version <= graph.opset for entry in needed) else None


def _known(versions: list[int], limit: int) -> list[int]:
    return sorted(version for version in versions if version <= limit)


def _type(graph: Graph, name: str) -> onnx.TypeProto:
    return graph.type(name) or onnx.TypeProto()


def _attributes(schema: defs.OpSchema, node: onnx.NodeProto) -> dict[str, onnx.AttributeProto]:
    """The node's attributes; where it states none, the operator's defaults."""
    values = {
        name: attribute.default_value
        for name, attribute in schema.attributes.items()
        if attribute.default_value.type != onnx.AttributeProto.UNDEFINED
    }
    values.update((attribute.name, attribute) for attribute in node.attribute)
    return values
