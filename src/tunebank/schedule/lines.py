"""A convolution and the window that slides over its results, line by line.

    t[n, y, x, k]   = clip(sum over c of x[n, y, x, c] * w[c, k] + ...)       a sum of products
    out[n, y, x, k] = sum over ry, rx of pad(t)[n, y+ry, x+rx, k] * v[ry, rx, k]     a window

What is between the two is often the largest tensor of a network: as two kernels, one writes it and
the other reads it. Here a thread takes some vectors of channels through both, and keeps as many
lines of them as the window reaches over (a *line buffer*): they stay in its near cache.

    parallel groups of channels x bands of lines:
        each line of results:
            the new lines:  rows x vectors of registers, the kernel's steps, into the line buffer
            the window:     some columns side by side, the kernel's steps, stored

A band computes the lines that its first window reaches over anew. Halide calls it a sliding window
with folded storage (Ragan-Kelley et al., PLDI 2013). The window may be a depthwise convolution or
a pooling. A schedule of this kind is a trace of one step, `Lines`, whose attributes are the
parameters.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from functools import lru_cache
from typing import Any

from tvm import ir, sym, tirx

from tunebank.device import Device
from tunebank.kernel import BlockSite, Kernel
from tunebank.kernel.expressions import loads
from tunebank.schedule.panels import Product, product_at, uneven
from tunebank.schedule.pointwise import (
    Reduction,
    Step,
    as_reduction,
    as_step,
    rebuilt,
    steps_after,
)
from tunebank.schedule.registers import whole_vectors_efficiency
from tunebank.schedule.trace import Trace, one_step

KIND = "Lines"

_IMAGE_AXES = 4  # n, y, x, k
_MOST_ROWS = 15
_MOST_VECTORS = 4
_MOST_BANDS = 64
_MOST_TAPS = 81
_CHOICES = 3
_NEAR_CACHE_BYTES = 24 * 1024
_FAR_COST = 0.05
"""For each doubling of what a thread keeps beyond the near cache."""
_VECTOR_COST = 0.1
"""Of each vector beside the first, by what was measured on a Zen 4."""
_MOST_STEPS = 128
_MOST_PANEL_BYTES = 256 * 1024
_GOOD_RATE = 0.9
_BETWEEN_COST = 20.0
_WINDOW_COST = 2.0
"""Of a window's multiply-adds, each of which loads its value, beside those in registers."""


@dataclass(frozen=True)
class Parameters:
    """Of a Lines schedule.

    Attributes:
        rows: of a register tile of the sum of products, at most.
        vectors: of channels that a thread takes at a time.
        bands: into how many the lines of results are shared out.
    """

    rows: int
    vectors: int
    bands: int


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
    taps: tuple[tuple[int, int, tuple[int, ...]], ...]
    steps: tuple[Step, ...]

    @property
    def reach(self) -> int:
        """How many lines the window reaches over."""
        return 1 + max(line for line, _, _ in self.taps)


@dataclass(frozen=True)
class Padding:
    """What surrounds an image: lines above, columns to the left, and the value there."""

    top: int = 0
    left: int = 0
    value: Any = None


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


def lines_traces(kernel: Kernel, device: Device) -> list[Trace]:
    """Schedules of this kind, the most promising first; none if the kernel is something else."""
    chain = as_chain(kernel)
    if chain is None:
        return []
    costs = {one: _cost(chain, one, device) for one in _choices(chain, device)}
    by_vectors: dict[int, Parameters] = {}
    for one in sorted(costs, key=lambda one: costs[one]):
        by_vectors.setdefault(one.vectors, one)  # tiles that differ in kind
    return [to_trace(one) for one in list(by_vectors.values())[:_CHOICES]]


def is_worthwhile(kernel: Kernel, device: Device) -> bool:
    """Whether a kernel should be faster in this way than as two kernels.

    Those do their multiply-adds at a good rate, and write and read what is between them, which
    costs as much as some 20 multiply-adds for each value. Fitted to 42 pairs of kernels of
    MobileNetV2, MnasNet, EfficientNet-B0, GoogLeNet and ResNet-18 on a Zen 4: long sums hide it.
    """
    chain = as_chain(kernel)
    if chain is None or chain.product.count(chain.product.reduced) > _MOST_STEPS:
        return False
    least = min((_cost(chain, one, device) for one in _choices(chain, device)), default=math.inf)
    products, taps = _multiply_adds(chain)
    return least <= (products + taps) / _GOOD_RATE + _BETWEEN_COST * _image(chain)


def to_trace(parameters: Parameters) -> Trace:
    """The schedule as a trace."""
    return one_step(KIND, *astuple(parameters))


def parameters_of(trace: Trace) -> Parameters:
    """The parameters of a Lines schedule.

    Raises:
        ValueError: they are none.
    """
    values = trace.instructions[0].attributes
    if len(values) != len(fields(Parameters)) or any(type(value) is not int for value in values):
        raise ValueError("not the parameters of a Lines schedule")
    return Parameters(*values)


def fits(chain: Chain, device: Device, parameters: Parameters) -> bool:
    """Whether a kernel may have a schedule with these parameters."""
    return (
        1 <= parameters.rows <= _MOST_ROWS
        and 1 <= parameters.vectors <= _MOST_VECTORS
        and parameters.vectors * device.vector_lanes <= chain.window.shape[3]
        and 1 <= parameters.bands <= min(_MOST_BANDS, chain.window.shape[1])
    )


def _choices(chain: Chain, device: Device) -> list[Parameters]:
    height = chain.window.shape[1]
    bands = sorted({min(height, _MOST_BANDS, n * device.threads) for n in (1, 2, 4)} | {1})
    return [
        one
        for vectors in range(1, _MOST_VECTORS + 1)
        for band in bands
        if fits(chain, device, one := Parameters(_rows(vectors, device), vectors, band))
        and _panel_bytes(chain, one, device) <= _MOST_PANEL_BYTES
    ]


def _rows(vectors: int, device: Device) -> int:
    """As many as leave registers for the vectors and for the value that they are multiplied by."""
    return max(1, min(_MOST_ROWS, (device.vector_registers - vectors - 1) // vectors))


def _panel_bytes(chain: Chain, parameters: Parameters, device: Device) -> int:
    columns = parameters.vectors * device.vector_lanes
    return 4 * chain.product.count(chain.product.reduced) * columns


def _cost(chain: Chain, parameters: Parameters, device: Device) -> float:
    """Time for one channel of an image, in multiply-adds at the peak rate of all threads."""
    product, window = chain.product, chain.window
    columns = parameters.vectors * device.vector_lanes
    batch, height, _, wanted = window.shape
    groups = math.ceil(wanted / columns)
    tasks = batch * groups * parameters.bands
    idle = math.ceil(tasks / device.threads) * device.threads / tasks
    lines = parameters.bands * (window.reach - min(window.reach, window.stride[0]))
    lines += height * min(window.reach, window.stride[0])  # more, where bands begin
    cycles = sum(
        count * rows / whole_vectors_efficiency(rows, parameters.vectors, device)
        for count, rows in uneven(product.rows, parameters.rows)
        if count
    )
    steps = product.count(product.reduced)
    kept = 4.0 * columns * (window.reach * chain.padded[1] + steps)
    far = 1.0 + _FAR_COST * max(0.0, math.log2(kept / _NEAR_CACHE_BYTES))
    far *= 1.0 + _VECTOR_COST * (parameters.vectors - 1)
    _, taps = _multiply_adds(chain)
    return (lines * cycles * steps + taps) * (groups * columns / wanted) * idle * far


def _image(chain: Chain) -> int:
    """Values between the two, of one channel of an image."""
    return chain.product.extents[1] * chain.product.extents[2]


def _multiply_adds(chain: Chain) -> tuple[float, float]:
    """Of one channel of an image, at least: those of the sum, and of the window by their cost."""
    _, height, width, _ = chain.window.shape
    steps = chain.product.count(chain.product.reduced)
    return _image(chain) * steps, _WINDOW_COST * height * width * len(chain.window.taps)


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
    if padding is None or not _reads_parameters(kernel, product, window, between):
        return None
    is_image = product.row == 2 and product.column == 3 and not product.shared
    return Chain(kernel, product, between, padding, window) if is_image else None


def _product(kernel: Kernel, first: int, second: int) -> tuple[Product | None, int]:
    """The sum with as many of the blocks after it as are its steps, and where they end."""
    for end in range(second, first, -1):
        product = product_at(kernel, first, end=end)
        if product is not None:
            return product, end
    return None, second


def _window(kernel: Kernel, position: int) -> Window | None:
    site = kernel.sites[position]
    found = as_reduction(site)
    if found is None or not _is_window(found) or site.extents is None:
        return None
    shape = tuple(site.extents[axis] for axis in site.spatial_loops)
    steps = steps_after(kernel.sites[position + 1 :], found.result, shape)
    params = list(kernel.func.params)
    read = [load for load in loads(found.value) if load.source not in params]
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
        weights = _weights(index, (*found.axes, *found.reduced))
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


def _weights(index: Any, axes: Sequence[Any]) -> list[int] | None:
    """Of an index that is a weighted sum of axes, the weights, and what is added; else None."""
    found = sym.detect_linear_equation(index, list(axes))
    if not found or not all(isinstance(one, tirx.IntImm) for one in found):
        return None
    return [int(one) for one in found]


def _dot(weights: Sequence[int], place: Sequence[int]) -> int:
    return sum(weight * at for weight, at in zip(weights, place, strict=True))


def _padding(sites: Sequence[BlockSite], between: Any, source: Any) -> Padding | None:
    """What the blocks between the two put around an image; None if they do something else."""
    if not sites:
        return Padding() if source == between else None
    step = as_step(sites[0]) if len(sites) == 1 else None
    if step is None or step.result != source or len(step.axes) != _IMAGE_AXES:
        return None
    if not isinstance(step.value, ir.Call) or len(step.value.args) != 3:
        return None
    if getattr(step.value.op, "name", "") != "prim.if_then_else":
        return None
    inside, load, value = step.value.args
    if not isinstance(load, ir.TensorLoad) or load.source != between:
        return None
    moves = [_weights(index, step.axes) for index in load.indices]
    one_to_one = [[int(i == j) for j in range(_IMAGE_AXES)] for i in range(_IMAGE_AXES)]
    if not isinstance(value, tirx.FloatImm) or any(move is None for move in moves):
        return None
    if [move[:-1] for move in moves if move is not None] != one_to_one:
        return None
    n, y, x, k = (move[-1] for move in moves if move is not None)
    found = Padding(-y, -x, value)
    shape = [int(extent) for extent in between.shape]
    is_image = n == k == 0 and found.top >= 0 and found.left >= 0
    padded = [int(extent) for extent in source.shape]
    return found if is_image and _is_inside(inside, step.axes, found, shape, padded) else None


def _is_inside(
    condition: Any,
    axes: Sequence[Any],
    padding: Padding,
    shape: Sequence[int],
    padded: Sequence[int],
) -> bool:
    """Whether a condition holds on the image and nowhere around it, tried at its corners."""
    top, left = padding.top, padding.left
    lines, columns = (
        {at: begin <= at < end for at in (begin - 1, begin, end - 1, end) if 0 <= at < whole}
        for begin, end, whole in (
            (top, top + shape[1], padded[1]),
            (left, left + shape[2], padded[2]),
        )
    )
    analyzer = sym.Analyzer()
    for line, column in itertools.product(lines, columns):
        place = dict(zip(axes, (0, line, column, 0), strict=True))
        found = analyzer.simplify(rebuilt(condition, place, _no_load))
        if not isinstance(found, tirx.IntImm):
            return False
        if bool(found.value) != (lines[line] and columns[column]):
            return False
    return True


def _no_load(buffer: Any, place: list[Any]) -> Any:
    raise ValueError("a condition that depends on values")


def _reads_parameters(kernel: Kernel, product: Product, window: Window, between: Any) -> bool:
    """Whether the window and its steps read nothing else of what comes before."""
    params = list(kernel.func.params)
    own = {window.source, window.reduction.result, *(step.result for step in window.steps)}
    values: Mapping[Any, Any] = {step.result: step.value for step in window.steps}
    reads = [load.source for value in (window.reduction.value, *values.values())
             for load in loads(value)]  # fmt: skip
    inner = {product.result, *(step.result for step in product.steps)}
    return all(one in params or one in own for one in reads) and not inner & set(params)
