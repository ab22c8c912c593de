"""Sum of several operands as additions."""

from __future__ import annotations

import onnx

from tunebank.model.rewrite.graph import Graph
from tunebank.model.rewrite.replacement import Replacement


def split_sum(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """Sum(a, b, c) → Add(Add(a, b), c): TVM would stack the operands to sum over them."""
    new.sum(node.input, out=node.output[0])
    return True
