"""Weights packed as a schedule wants them, outside of the program.

The post-processor `RewriteLayout` puts a block before the program that packs a weight,

    packed[k // 4, c // 16, k % 4, c % 16] = weight[k, c]

which the measured program leaves out: in an artifact it runs once, when the model is compiled.
Its index expressions are evaluated here on whole arrays.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import ir, tirx
from tvm.s_tir import SBlock

from tunebank.kernel import block_sites
from tunebank.schedule.factor import PACKING
from tunebank.schedule.winograd import ATTRIBUTE, WEIGHT

Array = np.ndarray[Any, Any]

_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    tirx.Add: operator.add,
    tirx.Sub: operator.sub,
    tirx.Mul: operator.mul,
    tirx.FloorDiv: operator.floordiv,
    tirx.FloorMod: operator.mod,
    tirx.Min: np.minimum,
}


@dataclass(frozen=True)
class BlockPacking:
    """How a parameter is packed: its position, and the block of the program that does it."""

    position: int
    block: SBlock

    def plain_shape(self, packed: Sequence[int]) -> tuple[int, ...]:
        """The shape of the parameter in the program: as the kernel has it."""
        return tuple(packed)

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


@dataclass(frozen=True)
class WinogradPacking:
    """A convolution's weight as Winograd's minimal filtering wants it; see `winograd.py`.

    Attributes:
        position: of the parameter.
        outputs: m, results of a tile in one dimension.
        window: r, weights in one dimension.
        columns: of the register tile.
    """

    position: int
    outputs: int
    window: int
    columns: int

    def plain_shape(self, packed: Sequence[int]) -> tuple[int, ...]:
        """The shape that the kernel's own weight has, (r, r, C, K)."""
        _, groups, channels, columns = packed
        return (self.window, self.window, channels, groups * columns)

    def apply(self, weight: Array) -> Array:
        """G g G' in double precision, (r, r, C, K) → (a², K / columns, C, columns)."""
        factors = np.array(WEIGHT[self.outputs, self.window])
        whole = np.einsum("ir,rsck,js->ijck", factors, weight.astype(np.float64), factors)
        values, channels = whole.shape[0] ** 2, whole.shape[2]
        split = whole.reshape(values, channels, -1, self.columns)
        return np.ascontiguousarray(split.transpose(0, 2, 1, 3)).astype(weight.dtype)


Packing = BlockPacking | WinogradPacking
"""How one parameter is packed."""


def packings(module: ir.IRModule) -> list[Packing]:
    """The packings of a scheduled program's parameters."""
    (func,) = (func for _, func in module.functions_items())
    if func.attrs is not None and ATTRIBUTE in func.attrs:
        return [WinogradPacking(*(int(value) for value in func.attrs[ATTRIBUTE]))]
    positions = {param: index for index, param in enumerate(func.params)}
    return [
        BlockPacking(positions[site.block.body.value.source], site.block)
        for site in block_sites(func)
        if PACKING in site.block.annotations
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
