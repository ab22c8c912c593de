"""A kernel read as a window that slides over the results of a sum of products.

    conv[n, y, x, k]  += x[n, y, x, c] * w[c, k]                               product
    t[n, y, x, k]      = max(conv[n, y, x, k] + b[k], 0)                       its steps
    pad[n, y, x, k]    = if_then_else(inside, t[n, y - 1, x - 1, k], 0)        padding
    out[n, y, x, k]   += pad[n, y + ry, x + rx, k] * v[ry, rx, k]              window
    ...                                                                        its steps

The window is a depthwise convolution or a pooling: each channel by itself.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tvm import ir, sym, tirx

from tunebank.kernel import BlockSite, Kernel
from tunebank.kernel.expressions import IF_THEN_ELSE, loads
from tunebank.schedule.pointwise import (
    Reduction,
    Step,
    as_reduction,
    as_step,
    rebuilt,
    steps_after,
    weights_of,
)
from tunebank.schedule.product import Product, product_at

_IMAGE_AXES = 4  # n, y, x, k
_MOST_TAPS = 81


Taps = tuple[tuple[int, int, tuple[int, ...]], ...]
"""Places of a window: line, column, and the reduction's axes there."""

Rows = tuple[int, int, Taps]
"""How many times the same places, how many lines further down each time, and the first ones."""


@dataclass(frozen=True)
class Window:
    """A reduction over a window that slides over images, each channel by itself.

    Attributes:
        reduction: the reduction.
        source: the buffer that the window slides over.
        shape: of the results, (N, H, W, K).
        stride: lines and columns from one window to the next.
        taps: for each place in the window its line, its column, and the reduction's axes there.
        steps: what is done to the results, in order.
    """

    reduction: Reduction
    source: Any
    shape: tuple[int, ...]
    stride: tuple[int, int]
    taps: Taps
    steps: tuple[Step, ...]

    @property
    def reach(self) -> int:
        """How many lines the window reaches over."""
        return 1 + max(line for line, _, _ in self.taps)

    @property
    def rows(self) -> Rows:
        """Its places as so many times the same ones, a step further down each time."""
        count = 1 + max((place[0] for _, _, place in self.taps if place), default=0)
        size = len(self.taps) // count
        first = self.taps[:size]
        step = self.taps[size][0] - first[0][0] if count > 1 else 0
        repeated = tuple(
            (line + row * step, column, (row, *place[1:]))
            for row in range(count)
            for line, column, place in first
        )
        return (count, step, first) if repeated == self.taps else (1, 0, self.taps)


@dataclass(frozen=True)
class Padding:
    """What surrounds an image before a window slides over it.

    Attributes:
        height: of the image, in lines.
        width: of it, in columns.
        top: lines above it.
        left: columns to its left.
        value: what lies there.
    """

    height: int
    width: int
    top: int = 0
    left: int = 0
    value: Any = None


@dataclass(frozen=True)
class Slide:
    """A kernel that slides a window over an image.

    Attributes:
        kernel: the kernel.
        image: the buffer that is the image.
        producers: what computes its values, by what it writes; none if it is a parameter.
        padding: what surrounds it before the window slides over it.
        window: the window.
    """

    kernel: Kernel
    image: Any
    producers: Mapping[Any, Step]
    padding: Padding
    window: Window


@dataclass(frozen=True)
class Chain:
    """A kernel that slides a window over the results of a sum of products.

    Attributes:
        kernel: the kernel.
        product: the sum of products; its result has the shape (N, H, W, K).
        between: the buffer that its steps leave.
        padding: what surrounds that before the window slides over it.
        window: the window.
    """

    kernel: Kernel
    product: Product
    between: Any
    padding: Padding
    window: Window

    @property
    def padded(self) -> tuple[int, int]:
        """Lines and columns that the window slides over."""
        _, lines, columns, _ = (int(extent) for extent in self.window.source.shape)
        return lines, columns


def may_slide(kernel: Kernel) -> bool:
    """Whether a kernel may be the second part of one of this kind: a quick look."""
    found = None if kernel.anchor is None else as_reduction(kernel.sites[kernel.anchor])
    return found is not None and _is_window(found)


@lru_cache(maxsize=512)
def as_chain(kernel: Kernel) -> Chain | None:
    """The kernel as a window over a sum of products; None if it is something else."""
    reductions = [position for position, site in enumerate(kernel.sites) if site.reduces]
    if len(reductions) != 2:
        return None
    first, second = reductions
    window = _window(kernel, second)
    product, end = _product(kernel, first, second)
    if window is None or product is None:
        return None
    between = product.steps[-1].result if product.steps else product.result
    padding = _padding(kernel.sites[end:second], between, window.source)
    if padding is None or not _reads_parameters(kernel, product, window):
        return None
    is_image = product.row == 2 and product.column == 3 and not product.shared
    return Chain(kernel, product, between, padding, window) if is_image else None


@lru_cache(maxsize=512)
def as_slide(kernel: Kernel) -> Slide | None:
    """The kernel as a window over an image; None if it is something else."""
    if kernel.anchor is None or sum(site.reduces for site in kernel.sites) != 1:
        return None
    window = _window(kernel, kernel.anchor)
    steps = [as_step(site) for site in kernel.sites[1 : kernel.anchor]]
    if window is None or None in steps:
        return None
    producers = {step.result: step for step in steps if step is not None}
    image, padding = window.source, _padding((), window.source, window.source)
    step = producers.get(image)
    if step is not None and isinstance(step.value, ir.Call):
        for load in loads(step.value):
            padded = _padding(kernel.sites[kernel.anchor - 1 : kernel.anchor], load.source, image)
            image, padding = (load.source, padded) if padded is not None else (image, padding)
    params = list(kernel.func.params)
    known = [*params, *producers, window.reduction.result, *(one.result for one in window.steps)]
    values = [one.value for one in (*producers.values(), *window.steps)]
    if padding is None or any(one.source not in known for value in values for one in loads(value)):
        return None
    return Slide(kernel, image, producers, padding, window)


def _product(kernel: Kernel, first: int, second: int) -> tuple[Product | None, int]:
    """The sum with as many of the blocks after it as are its steps, and where they end."""
    for end in range(second, first, -1):
        product = product_at(kernel, first, end=end)
        if product is not None:
            is_plain = not product.is_of_bytes and product.together == product.columns
            return (product if is_plain else None), end
    return None, second


def _window(kernel: Kernel, position: int) -> Window | None:
    site = kernel.sites[position]
    found = as_reduction(site)
    if found is None or not _is_window(found) or site.extents is None:
        return None
    shape = tuple(site.extents[axis] for axis in site.spatial_loops)
    steps = steps_after(kernel.sites[position + 1 :], found.result, shape)
    params = list(kernel.func.params)
    is_pooling = isinstance(found.value, ir.TensorLoad)
    read = [one for one in loads(found.value) if is_pooling or one.source not in params]
    if steps is None or len(read) != 1:
        return None
    moves = _moves(read[0], found)
    if moves is None:
        return None
    (down, lines), (across, columns) = moves
    taps = tuple(
        (_dot(lines, place), _dot(columns, place), place)
        for place in itertools.product(*map(range, found.extents))
    )
    return Window(found, read[0].source, shape, (down, across), taps, steps)


def _is_window(found: Reduction) -> bool:
    return (
        len(found.axes) == _IMAGE_AXES
        and str(found.result.dtype) == "float32"
        and math.prod(found.extents) <= _MOST_TAPS
    )


_Move = tuple[int, list[int]]
"""How far an index moves with the results, and with each axis of the window."""


def _moves(load: Any, found: Reduction) -> tuple[_Move, _Move] | None:
    """Of what a window reads the moves of line and column; None if it reads in another way."""
    if len(load.indices) != _IMAGE_AXES:
        return None
    moves = []
    for own, index in enumerate(load.indices):
        weights = weights_of(index, (*found.axes, *found.reduced))
        if weights is None or weights[-1]:
            return None  # begins elsewhere than at 0
        steps, places = weights[:_IMAGE_AXES], weights[_IMAGE_AXES:-1]
        moved = [w if extent > 1 else 0 for w, extent in zip(places, found.extents, strict=True)]
        if any(step for axis, step in enumerate(steps) if axis != own) or min(moved, default=0) < 0:
            return None
        moves.append((steps[own], moved))
    (image, *_), lines, columns, (channel, *_) = moves
    is_still = image == channel == 1 and not any(moves[0][1]) and not any(moves[3][1])
    return (lines, columns) if is_still and lines[0] > 0 and columns[0] > 0 else None


def _dot(weights: Sequence[int], place: Sequence[int]) -> int:
    return sum(weight * at for weight, at in zip(weights, place, strict=True))


def _padding(sites: Sequence[BlockSite], between: Any, source: Any) -> Padding | None:
    """What the blocks between the two put around an image; None if they do something else."""
    shape = [int(extent) for extent in between.shape]
    if not sites:
        return Padding(shape[1], shape[2]) if source == between else None
    step = as_step(sites[0]) if len(sites) == 1 else None
    if step is None or step.result != source or len(step.axes) != _IMAGE_AXES:
        return None
    if not isinstance(step.value, ir.Call) or len(step.value.args) != 3:
        return None
    if getattr(step.value.op, "name", "") != IF_THEN_ELSE:
        return None
    inside, load, value = step.value.args
    if not isinstance(load, ir.TensorLoad) or load.source != between:
        return None
    moves = [weights_of(index, step.axes) for index in load.indices]
    one_to_one = [[int(i == j) for j in range(_IMAGE_AXES)] for i in range(_IMAGE_AXES)]
    if not isinstance(value, tirx.FloatImm) or any(move is None for move in moves):
        return None
    if [move[:-1] for move in moves if move is not None] != one_to_one:
        return None
    n, y, x, k = (move[-1] for move in moves if move is not None)
    found = Padding(shape[1], shape[2], top=-y, left=-x, value=value)
    is_image = n == k == 0 and found.top >= 0 and found.left >= 0
    padded = [int(extent) for extent in source.shape]
    return found if is_image and _is_inside(inside, step.axes, found, padded) else None


def _is_inside(
    condition: Any,
    axes: Sequence[Any],
    padding: Padding,
    padded: Sequence[int],
) -> bool:
    """Whether a condition holds on the image and nowhere around it, tried at its corners."""
    top, left = padding.top, padding.left
    lines, columns = (
        {at: begin <= at < end for at in (begin - 1, begin, end - 1, end) if 0 <= at < whole}
        for begin, end, whole in (
            (top, top + padding.height, padded[1]),
            (left, left + padding.width, padded[2]),
        )
    )
    if next(loads(condition), None) is not None:
        return False
    analyzer = sym.Analyzer()
    for line, column in itertools.product(lines, columns):
        place = dict(zip(axes, (0, line, column, 0), strict=True))
        found = analyzer.simplify(rebuilt(condition, place, lambda buffer, at: buffer))
        expected = lines[line] and columns[column]
        if not isinstance(found, tirx.IntImm) or bool(found.value) != expected:
            return False
    return True


def _reads_parameters(kernel: Kernel, product: Product, window: Window) -> bool:
    """Whether the window and its steps read nothing else of what comes before."""
    params = list(kernel.func.params)
    own = [window.source, window.reduction.result, *(step.result for step in window.steps)]
    values = [window.reduction.value, *(step.value for step in window.steps)]
    before = [product.result, *(step.result for step in product.steps)]
    read = [load.source for value in values for load in loads(value)]
    return all(one in params or one in own for one in read) and not set(before) & set(params)
