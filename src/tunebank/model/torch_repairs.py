"""Repairs of programs that PyTorch's ONNX exporter would refuse or get wrong.

Each says what is wrong, and goes when the exporter does it right.
"""

from __future__ import annotations

from typing import Any


def repair(program: Any) -> Any:
    """The program with its repairs made in place; it computes what it computed."""
    for node in list(program.graph.nodes):
        if node.op == "call_function":
            _name_all_dimensions(node)
    program.graph_module.recompile()
    return program


def _name_all_dimensions(node: Any) -> None:
    """amax(x) → amax(x, [0, 1, ...]): onnxscript's translation requires `dim`."""
    if str(node.target) not in ("aten.amax.default", "aten.amin.default"):
        return
    if len(node.args) > 1 and node.args[1]:
        return
    rank = node.args[0].meta["val"].dim()
    node.args = (node.args[0], list(range(rank)), *node.args[2:])
