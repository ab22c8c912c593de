"""The rewrite of a model: all rules, in rounds."""

from __future__ import annotations

import onnx
import onnx.inliner
import onnx.version_converter

from tunebank.errors import ModelError
from tunebank.model.rewrite.engine import apply_rules, drop_unused
from tunebank.model.rewrite.fold import fold_small
from tunebank.model.rewrite.graph import DOMAIN, Graph, opset_of, plain_domain
from tunebank.model.rewrite.rules import RULES, RULES_FOR_BYTES
from tunebank.model.rewrite.sink import sink_squeezes

_MAX_ROUNDS = 24
_MODERN_OPSET = 13


def rewrite(model: onnx.ModelProto, *, multiplies_bytes: bool = False) -> onnx.ModelProto:
    """Rewrites a model in terms of operators that TVM compiles, and compiles well.

    Args:
        model: the model; its input shapes are fixed. It is changed in place, unless it has
            functions of its own.
        multiplies_bytes: whether the CPU has an instruction for sums of products of bytes.

    Raises:
        ModelError: a node that can't be rewritten, and why; the message names the node, and
            not the file.
    """
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    model = _modern(model)
    _drop_weights_as_inputs(model.graph)
    rules = RULES_FOR_BYTES if multiplies_bytes else RULES
    for _ in range(_MAX_ROUNDS):
        graph = Graph(model)
        changed = fold_small(graph)
        if changed:
            graph = Graph(model)
        if not apply_rules(graph, rules) and not changed:
            break
    else:
        raise ModelError(
            f"the graph isn't settled after {_MAX_ROUNDS} rounds of rewriting: "
            "control flow is nested too deep"
        )
    sink_squeezes(graph)
    drop_unused(model.graph)
    _name_nodes(model.graph)
    return model


def _modern(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in version 13 of the operators, if its own is older.

    From there on axes are inputs, Softmax knows one axis, and Upsample is a Resize: rules and TVM's
    importer have fewer forms to know, and have them better. A model that can't be converted
    stays as it is.
    """
    if all(plain_domain(entry) != DOMAIN for entry in model.opset_import):
        # Operators of ai.onnx.ml alone; what they are rewritten to is of the default domain.
        model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, _MODERN_OPSET))
        return model
    before = opset_of(model)
    if before >= _MODERN_OPSET:
        return model
    names = {node.op_type for node in model.graph.node}
    if "Hardmax" in names or (before < 9 and "Scan" in names):
        return model  # the converter leaves out that these went by other dimensions
    try:
        return onnx.version_converter.convert_version(model, _MODERN_OPSET)
    except Exception:  # the converter raises whatever its adapters happen to raise
        return model


def _drop_weights_as_inputs(graph: onnx.GraphProto) -> None:
    """Old files list weights among the inputs; their shapes are written once from here on."""
    weights = {tensor.name for tensor in graph.initializer}
    kept = [value for value in graph.input if value.name not in weights]
    if len(kept) < len(graph.input):
        del graph.input[:]
        graph.input.extend(kept)
    infos = [value for value in graph.value_info if value.name not in weights]
    if len(infos) < len(graph.value_info):
        del graph.value_info[:]
        graph.value_info.extend(infos)


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Gives nodes without a name one, so that messages can say which node they are about."""
    for node in graph.node:
        if not node.name:
            node.name = next((name for name in node.output if name), node.op_type)
        if node.domain == "ai.onnx":
            node.domain = DOMAIN
