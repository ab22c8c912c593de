"""Which operators of a rewritten model TVM can't import."""

from __future__ import annotations

import onnx

from tunebank._tvm.onnx_frontend import imported_operators
from tunebank.model.rewrite.graph import DOMAIN, described, plain_domain


def unsupported(model: onnx.ModelProto) -> list[str]:
    """The operators of a rewritten graph that TVM lacks, each once, with a node that has it."""
    have = imported_operators()
    found: dict[tuple[str, str], str] = {}
    for node in model.graph.node:
        key = (plain_domain(node), node.op_type)
        # TVM's importer goes by the name alone, and takes an operator of another domain for
        # the one of ONNX that is called the same.
        if (key[0] != DOMAIN or node.op_type not in have) and key not in found:
            found[key] = described(node)
    return list(found.values())
