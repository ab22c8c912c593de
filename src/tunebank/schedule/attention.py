"""Attention: two matrix products and what weighs rows between them, a block of rows at a time.

    s[b, h, i, n] = sum over k of q[b, h, i, k] * kt[b, h, k, n]      scores, their steps
    p[b, h, i, n] = softmax over n of s[b, h, i, n]                   weights
    o[b, h, i, j] = sum over n of p[b, h, i, n] * v[b, h, n, j]       output, its steps

The scores are rows times columns: of 1500 positions and 6 heads 54 MB, which as three kernels are
written twice and read twice. Here a thread takes some rows through all three, and their scores
stay in its second cache:

    parallel heads x parts of their blocks of rows:
        panels of kt and v, laid out once
        each block of rows:
            scores      tiles of rows x vectors in registers, kept in the block
            softmax     row by row, in place
            output      tiles of rows x vectors in registers

FlashAttention (Dao et al., NeurIPS 2022) without its blocks of columns: whole rows of scores fit
into a CPU's cache. A schedule of this kind is a trace of one step, `Attention`, whose attributes
are the parameters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.kernel.expressions import loads
from tunebank.schedule.pointwise import same
from tunebank.schedule.product import Product, product_at
from tunebank.schedule.registers import rows_beside, uneven_cycles
from tunebank.schedule.rows import Rows, as_rows, rows_trace
from tunebank.schedule.trace import OwnParameters, Trace

KIND = "Attention"

_MOST_ROWS = 15
_MOST_VECTORS = 4
_MOST_PARTS = 64
_CHOICES = 3
_LEAST_REDUCTIONS = 3
"""Two products, and something along rows between them."""
_BLOCK_BYTES = 256 * 1024
"""Of scores that are kept at a time."""
_COPY_COST = 3.0
"""Multiply-adds that the copy of a value into a panel takes as long as."""
_PANEL_COST = 0.5
"""Of reading all panels from the second cache for each block of rows, shared among these."""


@dataclass(frozen=True)
class Attention:
    """A kernel of this kind.

    Attributes:
        kernel: the kernel.
        scores: the first product.
        between: the buffer that its steps leave.
        weights: what makes weights of them, along rows.
        output: the second product, whose X they are.
    """

    kernel: Kernel
    scores: Product
    between: Any
    weights: Rows
    output: Product

    @property
    def heads(self) -> tuple[int, ...]:
        """Extents of what rows and columns both depend on."""
        return self.weights.extents[:-1]

    @property
    def rows(self) -> int:
        """How many rows each head has."""
        return self.weights.extents[-1]


@dataclass(frozen=True)
class Parameters(OwnParameters):
    """Of an Attention schedule.

    Attributes:
        rows: of a register tile, at most.
        vectors: of a register tile.
        blocks: into how many the rows of a head are shared out.
        parts: into how many the blocks of a head are shared out; they divide them.
    """

    KIND: ClassVar[str] = KIND

    rows: int
    vectors: int
    blocks: int
    parts: int


def may_be_halves(first: Kernel, second: Kernel) -> bool:
    """Whether two kernels may be the first parts of one of this kind: a quick look."""
    return first.anchor is not None and second.anchor is not None and rows_trace(second) is not None


def attention_traces(kernel: Kernel, device: Device) -> list[Trace]:
    """Schedules of this kind, the most promising first; none if the kernel is something else."""
    found = as_attention(kernel)
    if found is None:
        return []
    choices = _choices(found, device)
    choices.sort(key=lambda one: _cost(found, one, device))
    return [one.trace for one in choices[:_CHOICES]]


def is_worthwhile(kernel: Kernel, device: Device) -> bool:
    """Whether a kernel should be faster in this way than as three kernels.

    By its best choice it was, on an Emerald Rapids, for all of eight networks', from 49 positions
    to 1500: 1.02 to 2.1 times.
    """
    found = as_attention(kernel)
    return found is not None and bool(_choices(found, device))


def fits(found: Attention, device: Device, parameters: Parameters) -> bool:
    """Whether a kernel may have a schedule with these parameters."""
    columns = parameters.vectors * device.vector_lanes
    return (
        1 <= parameters.rows <= _MOST_ROWS
        and 1 <= parameters.vectors <= _MOST_VECTORS
        and columns <= min(found.scores.columns, found.output.columns)
        and 1 <= parameters.parts <= min(parameters.blocks, _MOST_PARTS)
        and parameters.blocks <= found.rows
        and parameters.blocks % parameters.parts == 0
    )


def rows_of_a_block(found: Attention, parameters: Parameters) -> int:
    """How many rows a block has; the last begins where as many are left."""
    return math.ceil(found.rows / parameters.blocks)


@lru_cache(maxsize=512)
def as_attention(kernel: Kernel) -> Attention | None:
    """The kernel as attention; None if it is something else."""
    sums = [position for position, site in enumerate(kernel.sites) if site.reduces]
    if len(sums) < _LEAST_REDUCTIONS:
        return None
    first, second, last = sums[0], sums[1], sums[-1]
    scores = product_at(kernel, first, end=second)
    if scores is None or not _is_of_heads(scores):
        return None
    between = scores.steps[-1].result if scores.steps else scores.result
    for end in range(last, second, -1):
        output = product_at(kernel, last, begin=end)
        weights = as_rows(kernel.sites[second:end])
        if output is None or weights is None or weights.blocks[-1].result != output.x.source:
            continue
        if not _is_of_heads(output):
            return None
        found = Attention(kernel, scores, between, weights, output)
        return found if _is_whole(found) else None
    return None


def _is_of_heads(product: Product) -> bool:
    """Whether rows and columns belong to one head, and results lie by head, row and column."""
    spatial = [*product.shared, product.row, product.column]
    return (
        not product.is_of_bytes
        and product.together == product.columns
        and not product.others
        and product.row is not None
        and spatial == list(range(len(spatial)))
    )


def _is_whole(found: Attention) -> bool:
    """Whether each part reads what the one before it writes at its own place, and nothing else."""
    scores, output, weights = found.scores, found.output, found.weights
    place = [output.axes[p] for p in (*output.shared, output.row, *output.reduced) if p is not None]
    shape = (*weights.extents, weights.length)
    inner = [
        *(scores.result, *(step.result for step in scores.steps)),
        *(block.result for block in weights.blocks),
    ]
    return (
        same(output.x.indices, place)
        and tuple(int(extent) for extent in output.x.source.shape) == shape
        and tuple(int(extent) for extent in found.between.shape) == shape
        and not set(inner) & set(found.kernel.func.params)
        and _read(weights, inner) <= {found.between}
        and not any(load.source in inner for load in _others(output))
    )


def _read(weights: Rows, inner: Sequence[Any]) -> set[Any]:
    """What the blocks along rows read of the scores; not at its own place counts as all."""
    own = {block.result for block in weights.blocks}
    found: set[Any] = set()
    for block in weights.blocks:
        for load in loads(block.value):
            if load.source in inner and load.source not in own:
                is_own = block.column_axis is not None and same(
                    load.indices, [*block.row_axes, block.column_axis]
                )
                found |= {load.source} if is_own else set(inner)
    return found


def _others(output: Product) -> list[Any]:
    """What the second product reads beside the weights."""
    values = [output.w, *(step.value for step in (*output.producers.values(), *output.steps))]
    own = {output.result, *(step.result for step in output.steps), *output.producers}
    return [load for value in values for load in loads(value) if load.source not in own]


def _choices(found: Attention, device: Device) -> list[Parameters]:
    least = math.ceil(device.threads / math.prod(found.heads))
    choices = []
    for vectors in range(1, _MOST_VECTORS + 1):
        rows = rows_beside(vectors, device, most=_MOST_ROWS)
        for parts in {min(found.rows, n * least) for n in (1, 2)}:
            for most in (tiles * rows for tiles in (1, 2, 4, 8)):
                one = Parameters(rows, vectors, _blocks(found, most, parts), parts)
                is_near = 4 * most * found.weights.length <= _BLOCK_BYTES or most == rows
                if is_near and fits(found, device, one):
                    choices.append(one)
    return list(dict.fromkeys(choices))


def _blocks(found: Attention, most: int, parts: int) -> int:
    """How many blocks of at most so many rows, as many in each part."""
    return math.ceil(found.rows / (most * parts)) * parts


def _cost(found: Attention, parameters: Parameters, device: Device) -> float:
    """Time relative to that of all multiply-adds at the peak rate of all threads."""
    columns = parameters.vectors * device.vector_lanes
    block = rows_of_a_block(found, parameters)
    cycles = uneven_cycles(block, parameters.rows, parameters.vectors, device)
    products = (found.scores, found.output)
    steps = [product.count(product.reduced) for product in products]
    done = sum(one.groups(columns) * columns * n for one, n in zip(products, steps, strict=True))
    useful = sum(one.columns * n for one, n in zip(products, steps, strict=True))
    tasks = math.prod(found.heads) * parameters.parts
    idle = math.ceil(tasks / device.threads) * device.threads / tasks
    moved = 1.0 + _COPY_COST * parameters.parts / found.rows + _PANEL_COST / block
    return cycles * parameters.blocks / found.rows * done / useful * idle * moved
