"""A convolution and the window that slides over its results, line by line.

    t[n, y, x, k]   = clip(sum over c of x[n, y, x, c] * w[c, k] + ...)       a sum of products
    out[n, y, x, k] = sum over ry, rx of pad(t)[n, y+ry, x+rx, k] * v[ry, rx, k]     a window

What is between the two is often the largest tensor of a network: as two kernels, one writes it and
the other reads it. Here a thread takes some vectors of channels through both, and keeps as many
lines of them as the window reaches over (a *line buffer*): they stay in its near cache.

    parallel bands of lines x groups of channels:
        each line of results:
            the new lines:  rows x vectors of registers, the kernel's steps, into the line buffer
            the window:     some columns side by side, the kernel's steps, stored

A band computes the lines that its first window reaches over anew. Each thread has bands of its own,
so that it reads what it wrote itself as part of the kernel before, and not what lies in another
core's cache: on an Emerald Rapids that alone made MnasNet 1.15 to 1.45 times as fast. Halide calls
it a sliding window with folded storage (Ragan-Kelley et al., PLDI 2013). The window may be a
depthwise convolution or a pooling. A schedule of this kind is a trace of one step, `Lines`, whose
attributes are the parameters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.schedule.chain import Chain, as_chain
from tunebank.schedule.registers import rows_beside, uneven_cycles
from tunebank.schedule.trace import OwnParameters, Trace

KIND = "Lines"

_MOST_ROWS = 15
_MOST_VECTORS = 4
_MOST_BANDS = 64
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
class Parameters(OwnParameters):
    """Of a Lines schedule.

    Attributes:
        rows: of a register tile of the sum of products, at most.
        vectors: of channels that a thread takes at a time.
        bands: into how many the lines of results are shared out.
    """

    KIND: ClassVar[str] = KIND

    rows: int
    vectors: int
    bands: int


def lines_traces(kernel: Kernel, device: Device) -> list[Trace]:
    """Schedules of this kind, the most promising first; none if the kernel is something else."""
    chain = as_chain(kernel)
    if chain is None:
        return []
    choices = _choices(chain, device)
    choices.sort(key=lambda one: _cost(chain, one, device))
    return [one.trace for one in choices[:_CHOICES]]


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


def fits(chain: Chain, device: Device, parameters: Parameters) -> bool:
    """Whether a kernel may have a schedule with these parameters."""
    return (
        1 <= parameters.rows <= _MOST_ROWS
        and 1 <= parameters.vectors <= _MOST_VECTORS
        and parameters.vectors * device.vector_lanes <= chain.window.shape[3]
        and 1 <= parameters.bands <= min(_MOST_BANDS, chain.window.shape[1])
    )


def _choices(chain: Chain, device: Device) -> list[Parameters]:
    batch, height, _, _ = chain.window.shape
    share = math.ceil(device.threads / batch)
    bands = sorted({min(height, _MOST_BANDS, n * share) for n in (1, 2, 4)})
    choices = [
        Parameters(rows_beside(vectors, device, most=_MOST_ROWS), vectors, band)
        for vectors in range(1, _MOST_VECTORS + 1)
        for band in bands
    ]
    return [
        one
        for one in choices
        if fits(chain, device, one) and _panel_bytes(chain, one, device) <= _MOST_PANEL_BYTES
    ]


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
    cycles = uneven_cycles(product.rows, parameters.rows, parameters.vectors, device)
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
