"""Sums of products over awkward extents: matrix products and convolutions in uneven tiles.

    C[b, i, j] = sum over k of X[b, i, k] * W[b, k, j]      197 rows, 197 columns: both are prime

MetaSchedule tiles by divisors, and a prime has none: its register tile is one row, or one column.
Here rows are shared out among tiles as evenly as they go, 197 into 2 tiles of 14 and 13 of 13, and
the last columns overlap those before them, those of each group of a grouped convolution by
themselves; fewer than a vector has are filled up. What the tiles read of W is laid out first, so
that W may be transposed, or an activation as in attention:

    parallel groups of columns:
        panel[k, columns] = W[k, columns]                    a copy, in the near cache
        each other index of X, each tile of rows:
            sums in registers, over all k
            the kernel's own steps

A schedule of this kind is a trace of one step, `Panels`, whose attributes are the parameters. It is
the default where the register model promises clearly more than for any divisor, and for products of
bytes: with them, an instruction adds up four products for each of 16 columns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import lru_cache
from typing import Any

from tvm import ir, tirx

from tunebank.device import Device
from tunebank.kernel import BlockSite, Kernel
from tunebank.kernel.expressions import expressions
from tunebank.schedule.factor import is_constant
from tunebank.schedule.pointwise import Step, as_step, same, steps_after
from tunebank.schedule.registers import (
    anchor_tiles,
    tile_efficiency,
    whole_vectors_efficiency,
)
from tunebank.schedule.trace import Trace, one_step, whole_numbers

KIND = "Panels"

_MOST_ROWS = 15
_MOST_VECTORS = 4
_MOST_PARTS = 64
_CHOICES = 3
_LEAST_GAIN = 1.25
_LEAST_GAIN_OF_ACTIVATIONS = 0.5
"""Where W is no constant, which could be packed beforehand, it is worth a try even so."""
_TILES = 8
_COPY_COST = 3.0
"""Multiply-adds that the copy of a value takes as long as."""
_SIZE_COST = 0.002
"""Of each accumulator: of tiles that are as fast, the one of the shorter program."""
_HALF = 8
"""Elements in a vector of 256 bits."""
_BYTES_AT_ONCE = 4
"""Products that AVX-512's VPDPBUSD adds up."""
_NEAR_CACHE_BYTES = 512 * 1024


@dataclass(frozen=True)
class Parameters:
    """Of a Panels schedule.

    Attributes:
        rows: of a register tile, at most.
        vectors: of a register tile.
        parts: into how many the other indices of X are shared out.
    """

    rows: int
    vectors: int
    parts: int


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

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return 1 if self.row is None else self.extents[self.row]

    @property
    def has_constant_w(self) -> bool:
        """Whether W may be laid out anew when the model is compiled."""
        return is_constant(self.kernel, self.w.source)

    def count(self, positions: Sequence[int]) -> int:
        """How many elements some axes have together."""
        return math.prod(self.extents[position] for position in positions)


def panels_traces(kernel: Kernel, device: Device, *, clearly: bool) -> list[Trace]:
    """Schedules of this kind that promise more than divisors do, the best first.

    Args:
        kernel: the kernel.
        device: for its registers and threads.
        clearly: whether they must promise it even if vectors of half the width, which a divisor
            may leave, are as fast as whole ones: on Zen 4 they are.
    """
    found = as_product(kernel)
    if found is None:
        return []
    if found.is_of_bytes:
        return _best({one: _cost(found, one, device) for one in _choices(found, device)})
    even = _even_efficiency(kernel, device)
    if clearly and device.vector_lanes > _HALF:
        even = max(even, _even_efficiency(kernel, replace(device, vector_lanes=_HALF)))
    least = _LEAST_GAIN if clearly or found.has_constant_w else _LEAST_GAIN_OF_ACTIVATIONS
    if least * even >= 1.0:
        return []  # no cost is below 1
    costs = {one: _cost(found, one, device) for one in _choices(found, device)}
    return _best({one: cost for one, cost in costs.items() if cost * least * even < 1.0})


def _best(costs: Mapping[Parameters, float]) -> list[Trace]:
    by_vectors: dict[int, Parameters] = {}
    for one in sorted(costs, key=lambda one: costs[one]):
        by_vectors.setdefault(one.vectors, one)  # tiles that differ in kind
    return [to_trace(one) for one in list(by_vectors.values())[:_CHOICES]]


def to_trace(parameters: Parameters) -> Trace:
    """The schedule as a trace."""
    return one_step(KIND, *astuple(parameters))


def parameters_of(trace: Trace) -> Parameters:
    """The parameters of a Panels schedule.

    Raises:
        ValueError: they are none.
    """
    return Parameters(*whole_numbers(trace, 3))


def fits(product: Product, device: Device, parameters: Parameters) -> bool:
    """Whether a kernel may have a schedule with these parameters."""
    columns, wanted = parameters.vectors * device.vector_lanes, product.together
    if product.is_of_bytes and not (device.multiplies_bytes and wanted % columns == 0):
        return False
    is_one_vector = parameters.vectors == 1 and product.has_constant_w and not product.shared
    is_one_vector &= wanted == product.columns
    return (
        1 <= parameters.rows <= _MOST_ROWS
        and 1 <= parameters.vectors <= _MOST_VECTORS
        and (columns <= wanted or is_one_vector)
        and 1 <= parameters.parts <= min(_MOST_PARTS, product.count(product.others))
    )


def uneven(extent: int, most: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """An extent shared out among as few tiles as `most` allows: (count, size) of two kinds.

    >>> uneven(197, 14)
    ((2, 14), (13, 13))
    """
    tiles = math.ceil(extent / most)
    size, larger = divmod(extent, tiles)
    return (larger, size + 1), (tiles - larger, size)


def _even_efficiency(kernel: Kernel, device: Device) -> float:
    """Share of the peak rate that the best tile of divisors can reach."""
    tiles = [list(tile.values()) for tile in anchor_tiles(kernel, device, count=_TILES)]
    return max((tile_efficiency(math.prod(t[:-1]), t[-1], device) for t in tiles), default=0.0)


def _choices(product: Product, device: Device) -> list[Parameters]:
    others = product.count(product.others)
    parts = sorted({min(others, _MOST_PARTS, n * device.threads) for n in (1, 2, 4, 8)} | {1})
    return [
        one
        for rows in range(4, _MOST_ROWS + 1)
        for vectors in range(1, _MOST_VECTORS + 1)
        for part in parts
        if fits(product, device, one := Parameters(rows, vectors, part))
    ]


def _cost(product: Product, parameters: Parameters, device: Device) -> float:
    """Time relative to that of all multiply-adds at the peak rate of all threads."""
    columns = parameters.vectors * device.vector_lanes
    extent, wanted, groups = product.rows, product.columns, product.groups(columns)
    tasks = product.count(product.shared) * groups * parameters.parts
    idle = math.ceil(tasks / device.threads) * device.threads / tasks
    cycles = sum(
        count * rows / whole_vectors_efficiency(rows, parameters.vectors, device)
        for count, rows in uneven(extent, parameters.rows)
        if count
    )
    size = 1.0 + _SIZE_COST * parameters.rows * parameters.vectors
    in_task = extent * product.count(product.others) / parameters.parts
    copied = 1.0 + (0.0 if product.is_of_bytes else _COPY_COST / in_task)
    panel_bytes = 4.0 / product.depth * product.count(product.reduced) * columns
    far = max(1.0, panel_bytes / _NEAR_CACHE_BYTES)
    return cycles / extent * (groups * columns / wanted) * copied * idle * far * size


@lru_cache(maxsize=512)
def as_product(kernel: Kernel) -> Product | None:
    """The kernel as a sum of products; None if it is something else."""
    return None if kernel.anchor is None else product_at(kernel, kernel.anchor)


def product_at(kernel: Kernel, position: int, *, end: int | None = None) -> Product | None:
    """One of the kernel's blocks as a sum of products, and what surrounds it.

    Args:
        kernel: the kernel.
        position: of the block.
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
    rows = [p for p in spatial[:-1] if _has(x, axes[p]) and not _has(w, axes[p])]
    row = next((p for p in reversed(rows) if site.extents[p] > 1), None)
    rest = [p for p in spatial[:-1] if p != row]
    shape = [site.extents[p] for p in spatial]
    steps = steps_after(kernel.sites[position + 1 : end], site.block.body.buffer, shape)
    before = [as_step(one) for one in kernel.sites[1:position]]
    if steps is None or None in before:
        return None
    found = Product(
        kernel, axes, site.extents, row, column,
        tuple(p for p in rest if _has(w, axes[p])),
        tuple(p for p in rest if not _has(w, axes[p])),
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
    found: set[int] = set()

    def visit(part: Any) -> None:
        if isinstance(part, tirx.FloorDiv) and part.a.same_as(axis):
            found.add(int(part.b) if isinstance(part.b, tirx.IntImm) else 1)
        elif part.same_as(axis):
            found.add(1)
        else:
            for name in ("a", "b"):
                if hasattr(part, name):
                    visit(getattr(part, name))

    for index in load.indices:
        visit(index)
    return found.pop() if len(found) == 1 else (1 if found else None)


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


def _has(load: Any, axis: Any) -> bool:
    """Whether an axis is in the indices of a load."""
    return any(part.same_as(axis) for index in load.indices for part in expressions(index))
