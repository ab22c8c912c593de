"""Weights packed as a schedule wants them, outside of the program.

The post-processor `RewriteLayout` puts a block before the program that packs a weight,

    packed[k // 4, c // 16, k % 4, c % 16] = weight[k, c]

which the measured program leaves out: in an artifact it runs once, when the model is compiled.
Its index expressions are evaluated here on whole arrays.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import ir, tirx
from tvm.s_tir import SBlock

from tunebank.kernel import block_sites

Array = np.ndarray[Any, Any]
_ANNOTATION = "meta_schedule.layout_rewrite_preproc"

_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    tirx.Add: operator.add,
    tirx.Sub: operator.sub,
    tirx.Mul: operator.mul,
    tirx.FloorDiv: operator.floordiv,
    tirx.FloorMod: operator.mod,
}


@dataclass(frozen=True)
class Packing:
    """How one parameter is packed: its position, and the block that does it."""

    position: int
    block: SBlock

    def apply(self, weight: Array) -> Array:
        """The packed weight.

        Raises:
            ValueError: the block is no mere copy.
        """
        axes = self.block.iter_vars
        grid = np.ogrid[tuple(slice(int(axis.dom.extent)) for axis in axes)]
        values = {axis.var: index for axis, index in zip(axes, grid, strict=True)}
        store = self.block.body
        if not isinstance(store, tirx.BufferStore) or not isinstance(store.value, ir.TensorLoad):
            raise ValueError("the packing of a weight is no copy")
        packed = np.zeros([int(extent) for extent in store.buffer.shape], weight.dtype)
        source = tuple(_evaluated(index, values) for index in store.value.indices)
        packed[tuple(_evaluated(index, values) for index in store.indices)] = weight[source]
        return packed


def packings(module: ir.IRModule) -> list[Packing]:
    """The packings of a scheduled program's parameters."""
    (func,) = (func for _, func in module.functions_items())
    positions = {param: index for index, param in enumerate(func.params)}
    return [
        Packing(positions[site.block.body.value.source], site.block)
        for site in block_sites(func)
        if _ANNOTATION in site.block.annotations
    ]


def _evaluated(expr: Any, values: Mapping[Any, Any]) -> Any:
    if isinstance(expr, tirx.IntImm):
        return int(expr)
    if isinstance(expr, tirx.Var):
        return values[expr]
    function = _OPERATORS.get(type(expr))
    if function is None:
        raise ValueError(f"the packing of a weight uses {type(expr).__name__}")
    return function(_evaluated(expr.a, values), _evaluated(expr.b, values))
