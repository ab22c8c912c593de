"""Tensor programs of very many operands kept out of fusion.

The states of a recurrent layer are concatenated at its end. Fused with what computed them, that
makes one program of a hundred operands, each element of which is a cascade of conditions: TVM
takes minutes to schedule it, and it does not run faster than the copy that it saves.
"""

from __future__ import annotations

from tvm import ir, tirx

_MOST_PARAMETERS = 9  # eight operands and a result
_OPAQUE = 8  # TVM's pattern of an operator that nothing is fused with


def with_wide_apart(module: ir.IRModule) -> ir.IRModule:
    """The module with its wide programs marked as opaque to fusion."""
    for var, func in module.functions_items():
        if isinstance(func, tirx.PrimFunc) and len(func.params) > _MOST_PARAMETERS:
            module.update_func(var, func.with_attr("op_pattern", _OPAQUE))
    return module
