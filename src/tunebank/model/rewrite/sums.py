"""Sum of several operands as additions."""

from __future__ import annotations

import onnx

from tunebank.model.rewrite.graph import Graph
from tunebank.model.rewrite.replacement import Replacement


def split_sum(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """Sum(a, b, c) → Add(Add(a, b), c): TVM would stack the operands to sum over them."""
    if len(node.input) < 2:
        new.identity(node.input[0], node.output[0])
        return True
    total = node.input[0]
    for operand in node.input[1:-1]:
        total = new.op("Add", total, operand)
    new.op("Add", total, node.input[-1], out=node.output[0])
    return True
