"""A kernel read as a sum of products, of floats or of bytes, and what surrounds it.

    C[b, i, j] = sum over k of X[b, i, k] * W[b, k, j]

X has not the columns j, or of a grouped convolution the number of the group alone, j // 68; W has
them. Bytes are widened to int32 before they are multiplied.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from tvm import ir, tirx

from tunebank.kernel import BlockSite, Kernel
from tunebank.kernel.expressions import expressions
from tunebank.schedule.factor import is_constant
from tunebank.schedule.pointwise import (
    Step,
    as_step,
    mentions,
    same,
    steps_after,
    weights_of,
)

_BYTES_AT_ONCE = 4
"""Products that AVX-512's VPDPBUSD adds up."""


@dataclass(frozen=True)
class Product:
    """A kernel that sums products, and what surrounds it.

    Attributes:
        kernel: the kernel.
        axes: of the sum, as they are in the kernel.
        extents: of the axes.
        row: position of the axis whose elements the rows of a tile are; None for a single row.
        column: position of the axis whose elements are the columns: the last spatial one.
        shared: positions of the other spatial axes that W depends on.
        others: positions of those that it does not.
        reduced: positions of the axes that are summed over.
        x: the factor without the columns, as the kernel reads it.
        w: the factor with the columns.
        result: the buffer of the bare results.
        steps: what is done to them, in order.
        producers: what computes the values that are read, by what it writes.
        depth: how many steps of the sum an instruction takes: 4 of bytes, 1 of floats.
        together: how many columns, one after another, are multiplied by one value of X: all of
            them, or those of a group of a grouped convolution.
    """

    kernel: Kernel
    axes: tuple[Any, ...]
    extents: tuple[int, ...]
    row: int | None
    column: int
    shared: tuple[int, ...]
    others: tuple[int, ...]
    reduced: tuple[int, ...]
    x: Any
    w: Any
    result: Any
    steps: tuple[Step, ...]
    producers: Mapping[Any, Step]
    depth: int
    together: int

    @property
    def is_of_bytes(self) -> bool:
        """Whether X is unsigned bytes and W signed ones, summed in int32."""
        return self.depth > 1

    @property
    def columns(self) -> int:
        """How many columns there are."""
        return self.extents[self.column]

    def groups(self, size: int) -> int:
        """Into how many groups of so many columns they are shared out; some may overlap."""
        return self.columns // self.together * math.ceil(self.together / size)

    def may_be_packed(self, size: int) -> bool:
        """Whether W may be laid out beforehand, in groups of so many columns.

        It is a constant without other indices than these and the steps of the sum, of whole groups,
        or of one that is not.
        """
        own, indices = [self.axes[p] for p in (*self.reduced, self.column)], self.w.indices
        return (
            self.has_constant_w
            and (self.together % size == 0 or self.columns < size)
            and len(indices) == len(own)
            and all(any(index.same_as(axis) for index in indices) for axis in own)
        )

    @property
    def is_dense(self) -> bool:
        """Whether it is a matrix of activations times one of weights, as a 1x1 convolution is."""
        return self.has_constant_w and not self.shared and self.is_flat

    @cached_property
    def is_flat(self) -> bool:
        """Whether rows follow each other in X from one of the other indices to the next."""
        if self.row is None or self.count(self.others) == 1:
            return True
        wanted = [p for p in (*self.others, self.row) if self.extents[p] > 1]
        shape = [int(extent) for extent in self.x.source.shape]
        found = [
            (self._axis_of(index), extent)
            for index, extent in zip(self.x.indices, shape, strict=True)
            if extent > 1
        ]
        return found[: len(wanted)] == [(p, self.extents[p]) for p in wanted]

    def _axis_of(self, index: Any) -> int | None:
        """Position of the axis that an index is; None if it is something else."""
        weights = weights_of(index, self.axes)
        if weights is None or weights.pop():
            return None
        moved = [
            (p, w)
            for p, (w, e) in enumerate(zip(weights, self.extents, strict=True))
            if w and e > 1
        ]
        return moved[0][0] if len(moved) == 1 and moved[0][1] == 1 else None

    @cached_property
    def row_bytes(self) -> int:
        """How far apart the rows are in X; 0 if there is one, or it follows from other axes too."""
        if self.row is None:
            return 0
        axis = self.axes[self.row]
        moves = [(weights_of(index, [axis]) or [0])[0] for index in self.x.indices]
        shape = [int(extent) for extent in self.x.source.shape]
        apart = sum(move * math.prod(shape[i + 1 :]) for i, move in enumerate(moves))
        return 4 * apart // self.depth

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return 1 if self.row is None else self.extents[self.row]

    @property
    def has_constant_w(self) -> bool:
        """Whether W may be laid out anew when the model is compiled."""
        return is_constant(self.kernel, self.w.source)

    @property
    def w_bytes(self) -> int:
        """How much W takes."""
        return self._bytes(self.w)

    @property
    def x_bytes(self) -> int:
        """How much X takes."""
        return self._bytes(self.x)

    @property
    def result_bytes(self) -> int:
        """How much the sums take."""
        return 4 * math.prod(self.extents) // self.count(self.reduced)

    def _bytes(self, load: Any) -> int:
        return 4 // self.depth * math.prod(int(extent) for extent in load.source.shape)

    def count(self, positions: Sequence[int]) -> int:
        """How many elements some axes have together."""
        return math.prod(self.extents[position] for position in positions)


@lru_cache(maxsize=512)
def as_product(kernel: Kernel) -> Product | None:
    """The kernel as a sum of products; None if it is something else."""
    return None if kernel.anchor is None else product_at(kernel, kernel.anchor)


def product_at(
    kernel: Kernel, position: int, *, begin: int = 1, end: int | None = None
) -> Product | None:
    """One of the kernel's blocks as a sum of products, and what surrounds it.

    Args:
        kernel: the kernel.
        position: of the block.
        begin: where the blocks begin that compute what it reads.
        end: where the blocks end that are its steps.
    """
    site = kernel.sites[position]
    factors = _factors(site)
    if factors is None or site.extents is None:
        return None
    axes = tuple(axis.var for axis in site.block.iter_vars)
    spatial = site.spatial_loops
    x, w, period = factors
    depth = _BYTES_AT_ONCE if str(x.source.dtype) == "uint8" else 1
    column = spatial[-1]
    in_x, in_w = ({p for p in spatial if mentions(load.indices, axes[p])} for load in (x, w))
    rows = [p for p in spatial[:-1] if p in in_x and p not in in_w]
    row = next((p for p in reversed(rows) if site.extents[p] > 1), None)
    rest = [p for p in spatial[:-1] if p != row]
    shape = [site.extents[p] for p in spatial]
    steps = steps_after(kernel.sites[position + 1 : end], site.block.body.buffer, shape)
    before = [as_step(one) for one in kernel.sites[begin:position]]
    if steps is None or None in before:
        return None
    found = Product(
        kernel, axes, site.extents, row, column,
        tuple(p for p in rest if p in in_w),
        tuple(p for p in rest if p not in in_w),
        tuple(p for p in range(len(axes)) if p not in spatial),
        x, w, site.block.body.buffer, steps, {one.result: one for one in before if one is not None},
        depth, period or site.extents[column],
    )  # fmt: skip
    return found if depth == 1 or _is_read_in_order(found) else None


def _is_read_in_order(product: Product) -> bool:
    """Whether X has side by side what an instruction takes at once, and W can be packed so.

    X may be read through copies that keep the order.
    """
    last, load = product.reduced[-1], product.x
    axis = product.axes[last]
    while True:
        if not load.indices[-1].same_as(axis):
            return False
        step = product.producers.get(load.source)
        if step is None or not isinstance(step.value, ir.TensorLoad):
            break
        load, axis = step.value, step.axes[-1]
    is_there = step is None or load is product.x  # what computes X itself runs beforehand
    return is_there and product.has_constant_w and product.extents[last] % product.depth == 0


def _factors(site: BlockSite) -> tuple[Any, Any, int | None] | None:
    """The factor without the last spatial axis, and that with it.

    The former may have it divided by a constant, the last of what is returned.
    """
    store, spatial = site.block.body, site.spatial_loops
    axes = [axis.var for axis in site.block.iter_vars]
    if site.extents is None or len(site.extents) != len(axes) or not spatial:
        return None
    is_sum = isinstance(store, tirx.BufferStore) and isinstance(store.value, tirx.Add)
    if not is_sum:
        return None
    so_far, product = store.value.a, store.value.b
    place = [axes[position] for position in spatial]
    if not isinstance(product, tirx.Mul) or not same(store.indices, place):
        return None
    if not same([so_far], [store.buffer[tuple(store.indices)]]) or not _begins_at_0(site):
        return None
    found = (_narrow(product.a), _narrow(product.b))
    if not all(isinstance(one, ir.TensorLoad) and _is_plain(one) for one in found):
        return None
    (x, period), (w, plain) = sorted(
        ((one, _period(one, axes[spatial[-1]])) for one in found), key=lambda pair: pair[1] == 1
    )
    types = tuple(str(one.dtype) for one in (x.source, w.source, store.buffer))
    is_known = types in (("float32",) * 3, ("uint8", "int8", "int32"))
    is_product = period != 1 and plain == 1
    return (x, w, period) if is_known and is_product else None


def _period(load: Any, axis: Any) -> int | None:
    """What an axis is divided by wherever it is in a load's indices: 1 where by nothing.

    None if it is nowhere.
    """
    parts = [part for index in load.indices for part in expressions(index)]
    divisors = [
        int(part.b)
        for part in parts
        if isinstance(part, tirx.FloorDiv)
        and part.a.same_as(axis)
        and isinstance(part.b, tirx.IntImm)
    ]
    uses = sum(part.same_as(axis) for part in parts)
    if uses == 0:
        return None
    return divisors[0] if uses == len(divisors) and len(set(divisors)) == 1 else 1


def _begins_at_0(site: BlockSite) -> bool:
    init = site.block.init
    return (
        isinstance(init, tirx.BufferStore)
        and isinstance(init.value, tirx.FloatImm | tirx.IntImm)
        and float(init.value.value) == 0.0
    )


def _narrow(factor: Any) -> Any:
    """What is widened to int32 before it is multiplied."""
    is_widened = isinstance(factor, tirx.Cast) and str(factor.ty.dtype) == "int32"
    return factor.value if is_widened else factor


def _is_plain(load: Any) -> bool:
    """Whether no index is itself looked up."""
    inner = [part for index in load.indices for part in expressions(index)]
    return not any(isinstance(part, ir.TensorLoad) for part in inner)
