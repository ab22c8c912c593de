"""Which operators of a rewritten model TVM can't import, or would import wrongly."""

from __future__ import annotations

import onnx

from tunebank._tvm.onnx_frontend import imported_operators
from tunebank.model.rewrite.graph import DOMAIN, described, plain_domain, subgraphs


def unsupported(model: onnx.ModelProto) -> list[str]:
    """What stands in the way of compiling a rewritten graph, one line for each kind of operator.

    A line names the operator, the first node that has it, and, where the operator is there in
    other forms, what of this one is missing.
    """
    have = imported_operators()
    found: dict[tuple[str, str, str], str] = {}
    for node in model.graph.node:
        domain = plain_domain(node)
        # TVM's importer goes by the name alone, and takes an operator of another domain for
        # the one of ONNX that is called the same.
        known = domain == DOMAIN and (node.op_type in have or node.op_type == "Constant")
        reason = _wrong_form(node) if known else ""
        if not known or reason:
            line = f"{described(node)}: {reason}" if reason else described(node)
            found.setdefault((domain, node.op_type, reason), line)
    return list(found.values())


def _wrong_form(node: onnx.NodeProto) -> str:
    """What of a node TVM's importer would leave out or get wrong; empty if nothing."""
    values = {attribute.name: attribute for attribute in node.attribute}

    def number(name: str) -> int:
        return int(values[name].i) if name in values else 0

    outputs = sum(name != "" for name in node.output)
    if any(True for _ in subgraphs(node)):
        return "its body can't be decided before the model runs"
    if node.op_type == "MaxPool" and outputs > 1:
        return "with indices, of other than float32 in one or two dimensions"
    if node.op_type in ("LayerNormalization", "BatchNormalization", "Dropout") and outputs > 1:
        return "with results for training"
    if node.op_type in ("BatchNormalization", "Dropout") and number("training_mode"):
        return "in training"
    if node.op_type == "Resize" and number("antialias"):
        return "with antialiasing to a size that isn't constant"
    if node.op_type in ("QuantizeLinear", "DequantizeLinear") and number("block_size"):
        return "in blocks"
    if node.op_type == "MaxUnpool" and len(node.input) > 2 and node.input[2]:
        return "with the shape of its result given"
    return ""
