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
the default where the register model promises clearly more than for any divisor; for dense layers,
whose packed panels it reads in order; and for products of bytes: with them, an instruction adds up
four products for each of 16 columns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.schedule.product import Product, as_product
from tunebank.schedule.registers import (
    anchor_tiles,
    tile_efficiency,
    uneven_cycles,
)
from tunebank.schedule.tiles import uneven
from tunebank.schedule.trace import OwnParameters, Trace

KIND = "Panels"

_MOST_ROWS = 15
_MOST_VECTORS = 4
_MOST_PARTS = 64
_CHOICES = 3
_LEAST_GAIN = 1.1
_LEAST_GAIN_OF_ACTIVATIONS = 0.5
"""Where W is no constant, which could be packed beforehand, it is worth a try even so."""
_LEAST_GAIN_OF_DENSE = 0.8
"""By BERT's and GPT-2's dense layers on a Zen 4: 1.04 to 1.26 times as fast."""
_MANY_ROWS = 16
_LEAST_GAIN_OF_FAR = 0.5
_FAR_BYTES = 1 << 20
"""Of a constant W of so much a panel alone stays in the second cache, over all rows. The sketches'
outermost loops go along rows too, and read W again for each of their tiles: on an Emerald Rapids
1.5 to 2.8 times as slow in ResNet's layers of 14x14 and 7x7 pixels."""
_FAR_BYTES_OF_DENSE = 32 * 1024
_QUICK = 32
"""Multiply-adds in a cycle: from there on dense layers gain so, too, as soon as W leaves the first
cache. By 1x1 convolutions of MnasNet on an Emerald Rapids: 1.1 to 2 times as fast."""
_LONG_SUM, _MUCH_WORK = 32, 1_750_000
"""Terms, and multiply-adds in all: of fewer a sketch with vectors of half the width is 0.7 to 1.1
times as slow on an Emerald Rapids, of more 1.1 to 2.0 times (24 kernels of 24 to 240 columns)."""
_TILES = 8
_COPY_COST = 3.0
"""Multiply-adds that the copy of a value takes as long as."""
_SIZE_COST = 0.002
"""Of each accumulator: of tiles that are as fast, the one of the shorter program."""
_PANEL_COST, _X_COST = 0.5, 0.2
"""Of reading a panel's vectors once for each tile of rows, and X once for each group of columns,
relative to a multiply-add: the former come from the second cache."""
_HALF = 8
"""Elements in a vector of 256 bits."""
_NEAR_CACHE_BYTES = 512 * 1024
_LINE_BYTES = 64
_SETS, _WAYS = 64, 8
"""Of the nearest cache: x86's first level has 64 sets, by the size of a page."""


@dataclass(frozen=True)
class Parameters(OwnParameters):
    """Of a Panels schedule.

    Attributes:
        rows: of a register tile, at most.
        vectors: of a register tile.
        parts: into how many the other indices of X are shared out.
    """

    KIND: ClassVar[str] = KIND

    rows: int
    vectors: int
    parts: int


def panels_traces(kernel: Kernel, device: Device, *, clearly: bool) -> list[Trace]:
    """Schedules of this kind that promise more than divisors do, the best first.

    Args:
        kernel: the kernel.
        device: for its registers and threads.
        clearly: whether they must promise it even if vectors of half the width, which a divisor
            may leave, are as fast as whole ones: on Zen 4 they are, elsewhere in small kernels.
    """
    found = as_product(kernel)
    if found is None:
        return []
    if found.is_of_bytes:
        return _best({one: _cost(found, one, device) for one in _choices(found, device)})
    even = _even_efficiency(kernel, device)
    if clearly and device.vector_lanes > _HALF and not _halves(found, device):
        even = max(even, _even_efficiency(kernel, replace(device, vector_lanes=_HALF)))
    least = _LEAST_GAIN if clearly or found.has_constant_w else _LEAST_GAIN_OF_ACTIVATIONS
    lines = found.count(found.others)
    if found.rows * lines >= _MANY_ROWS:
        if _is_far(found, device):
            least = _LEAST_GAIN_OF_FAR
        elif found.is_dense and (lines == 1 or not clearly):
            least = _LEAST_GAIN_OF_DENSE
    if least * even >= 1.0:
        return []  # no cost is below 1
    costs = {one: _cost(found, one, device) for one in _choices(found, device)}
    return _best({one: cost for one, cost in costs.items() if cost * least * even < 1.0})


def _halves(product: Product, device: Device) -> bool:
    """Whether vectors of half the width are half as fast, all in all."""
    terms = product.count(product.reduced)
    is_long = terms >= _LONG_SUM and math.prod(product.extents) >= _MUCH_WORK
    return is_long and device.multiply_adds >= _QUICK


def _is_far(product: Product, device: Device) -> bool:
    """Whether W is a constant that is worth being read once, in order."""
    is_quick = product.is_dense and device.multiply_adds >= _QUICK
    least = _FAR_BYTES_OF_DENSE if is_quick else _FAR_BYTES
    return product.has_constant_w and product.w_bytes >= least


def _best(costs: Mapping[Parameters, float]) -> list[Trace]:
    by_vectors: dict[int, Parameters] = {}
    for one in sorted(costs, key=lambda one: costs[one]):
        by_vectors.setdefault(one.vectors, one)  # tiles that differ in kind
    return [one.trace for one in list(by_vectors.values())[:_CHOICES]]


def fits(product: Product, device: Device, parameters: Parameters) -> bool:
    """Whether a kernel may have a schedule with these parameters."""
    columns, wanted = parameters.vectors * device.vector_lanes, product.together
    if product.is_of_bytes and not (device.multiplies_bytes and wanted % columns == 0):
        return False
    is_one_vector = parameters.vectors == 1 and product.may_be_packed(columns)
    return (
        1 <= parameters.rows <= _MOST_ROWS
        and 1 <= parameters.vectors <= _MOST_VECTORS
        and (columns <= wanted or is_one_vector)
        and 1 <= parameters.parts <= min(_MOST_PARTS, product.count(product.others))
    )


def _even_efficiency(kernel: Kernel, device: Device) -> float:
    """Share of the peak rate that the best tile of divisors can reach."""
    tiles = [list(tile.values()) for tile in anchor_tiles(kernel, device, count=_TILES)]
    return max((tile_efficiency(math.prod(t[:-1]), t[-1], device) for t in tiles), default=0.0)


def is_by_lines(product: Product) -> bool:
    """Whether threads share out lines of X, and not columns.

    Each reads all of W then, instead of all of X, and writes lines, which the next kernel's threads
    find in their own caches. Whatever is larger is not to go from one core to another.
    """
    return product.w_bytes < product.x_bytes + product.result_bytes


def _choices(product: Product, device: Device) -> list[Parameters]:
    others = product.count(product.others)
    parts = {min(others, _MOST_PARTS, n * device.threads) for n in (1, 2, 4, 8)}
    if not is_by_lines(product):
        parts.add(1)
    return [
        one
        for rows in range(4, _MOST_ROWS + 1)
        for vectors in range(1, _MOST_VECTORS + 1)
        for part in sorted(parts)
        if fits(product, device, one := Parameters(rows, vectors, part))
    ]


def _cost(product: Product, parameters: Parameters, device: Device) -> float:
    """Time relative to that of all multiply-adds at the peak rate of all threads."""
    vectors, columns = parameters.vectors, parameters.vectors * device.vector_lanes
    extent = product.rows * lines_of_a_pass(product, parameters)
    groups = product.groups(columns)
    tasks = product.count(product.shared) * groups * parameters.parts
    idle = math.ceil(tasks / device.threads) * device.threads / tasks
    cycles = uneven_cycles(extent, parameters.rows, vectors, device)
    rows = max(rows for count, rows in uneven(extent, parameters.rows) if count)
    read = (1.0 + _PANEL_COST / rows) * (1.0 + _X_COST / vectors)
    read *= max(1.0, _rows_in_a_set(product, rows) / _WAYS)
    size = 1.0 + _SIZE_COST * rows * vectors
    in_task = product.rows * product.count(product.others) / parameters.parts
    copied = 1.0 + (0.0 if product.may_be_packed(columns) else _COPY_COST / in_task)
    panel_bytes = 4.0 / product.depth * product.count(product.reduced) * columns
    far = max(1.0, panel_bytes / _NEAR_CACHE_BYTES)
    filled = groups * columns / product.columns
    return cycles / extent * filled * copied * idle * far * read * size


def lines_of_a_pass(product: Product, parameters: Parameters) -> int:
    """How many lines of rows are shared out among tiles together, as if they were one.

    All of a part, if they follow each other in X; else one.
    """
    lines, rest = divmod(product.count(product.others), parameters.parts)
    return lines if product.is_flat and rest == 0 else 1


def _rows_in_a_set(product: Product, rows: int) -> float:
    """How many of the rows of a tile have their values in one set of the nearest cache.

    Where rows are whole pages apart all are in one.
    """
    lines, rest = divmod(product.row_bytes, _LINE_BYTES)
    return 1.0 if rest or not lines else rows / (_SETS // math.gcd(_SETS, lines))
