"""Weights whose layout a schedule may choose: those alone whose places are known in advance.

TVM's `AttachAttrLayoutFreeBuffers` marks every constant argument, the table of an embedding among
them. The post-processor `RewriteLayout` then packs the table for the loops that it sees, as if an
index that is looked up were a loop's: wrong rows are read.
"""

from __future__ import annotations

from typing import Any

from tvm import ir, tirx

from tunebank.kernel import block_sites
from tunebank.kernel.expressions import expressions, loads

_ATTRIBUTE = "layout_free_buffers"


def without_looked_up(module: ir.IRModule) -> ir.IRModule:
    """The module without the permission to pack weights that are looked up by data."""
    for var, func in module.functions_items():
        if not isinstance(func, tirx.PrimFunc) or _ATTRIBUTE not in (func.attrs or {}):
            continue
        free = [int(position) for position in func.attrs[_ATTRIBUTE]]
        looked_up = _looked_up(func) if free else set()
        kept = [position for position in free if func.params[position] not in looked_up]
        if kept != free:
            module.update_func(var, func.with_attr(_ATTRIBUTE, kept))
    return module


def _looked_up(func: tirx.PrimFunc) -> set[Any]:
    """Buffers that are read at places which other buffers tell."""
    stores = [site.block.body for site in block_sites(func)]
    return {
        load.source
        for store in stores
        if isinstance(store, tirx.BufferStore)
        for load in loads(store.value)
        if any(
            isinstance(one, ir.TensorLoad) for index in load.indices for one in expressions(index)
        )
    }
