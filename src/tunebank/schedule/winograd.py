"""Winograd's minimal filtering for 3x3 and 5x5 convolutions of stride 1: fewer multiplications.

    Y = A' [ (G g G') * (B' d B) ] A      d: axa inputs, g: rxr weights, Y: mxm results

with a = m + r - 1 (Lavin and Gray, arXiv 1509.09308). Summed over channels, the product in the
middle is a² matrix products: for r = 3 and m = 4 a quarter of the multiplications, for r = 5 and
m = 2 some more than a third. G g G' is computed when the model is compiled. A thread takes some
tiles through all three stages, so that what is between them stays in its cache:

    parallel block of tiles, and where they are less than threads, share of its columns:
        each tile, 16 channels at a time:     values[e] = B' d B
        each e, rows x columns of registers:  products[e] = values[e] @ weights[e]
        each tile, 16 results at a time:      A' products A, then the kernel's own steps

With few tiles and many weights each thread so reads its share of the weights alone, once, and the
inputs are transformed by each anew: to have them from another core would take longer.

It rounds more than a plain sum: the largest error grows by some 10 for a = 6, by 2 for a = 4.
A schedule of this kind is a trace of one step, `Winograd`, whose attributes are the parameters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.schedule.convolution import Convolution, as_convolution
from tunebank.schedule.tiles import nearest_divisor
from tunebank.schedule.trace import OwnParameters, Trace

KIND = "Winograd"
ATTRIBUTE = "tunebank.winograd"
"""Of a program: position of the weight, m, r, columns of the register tile."""

WEIGHT = {
    (2, 3): ((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
    (4, 3): (
        (1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6), (1 / 24, -1 / 12, 1 / 6), (0, 0, 1),
    ),
    (2, 5): (
        (1 / 4, 0, 0, 0, 0),
        (-1 / 6, -1 / 6, -1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6, 1 / 3, 2 / 3), (1 / 24, -1 / 12, 1 / 6, -1 / 3, 2 / 3),
        (0, 0, 0, 0, 1),
    ),
}  # fmt: skip
"""G, by m and r. The points are 0, 1, -1 and the infinite one; for a = 6 also 2 and -2."""

GROWTH = {4: 2.0, 6: 10.0}
"""How many times larger the error is than that of a plain sum, by a."""

_TILES_PER_BLOCK = 64
_MOST_CHOICES = 3
_TRANSFORM_COST = 10.0
_CACHE_COST = 4.0
_NEAR_CACHE_BYTES = 128 * 1024
_STREAM_COST = 12.0
_FAR_COST = 12.0
_FAR_BYTES = 1 << 20
_MULTIPLY_ADDS = 16
"""Of a core in a cycle, where the costs are these."""
_DIRECT_EFFICIENCY = 0.9
_ENOUGH_ACCUMULATORS = 8
"""Two units of multiply-adds, each of which takes four cycles."""
_SPILLED_EFFICIENCY = 0.4
_MAX_COLUMNS = 4


@dataclass(frozen=True)
class Parameters(OwnParameters):
    """Of a Winograd schedule.

    Attributes:
        outputs: m, results of a tile in one dimension: 2 or 4; of a 5x5 convolution 2.
        tiles: tiles that a thread takes through all stages at a time.
        rows: tiles in a register tile.
        columns: vectors in a register tile.
    """

    KIND: ClassVar[str] = KIND

    outputs: int
    tiles: int
    rows: int
    columns: int


def winograd_traces(kernel: Kernel, device: Device) -> list[Trace]:
    """Winograd schedules that a kernel may have, the most promising first; none if it can't."""
    found = suitable(kernel, device)
    if found is None:
        return []
    _, height, width, results = found.shape
    vectors = results // device.vector_lanes
    choices = []
    for outputs in (m for m, window in WEIGHT if window == found.window[0]):
        count = math.ceil(height / outputs) * math.ceil(width / outputs) * found.shape[0]
        for rows, columns in _register_tiles(device, vectors, count):
            for tiles in {rows, 2 * rows, 4 * rows, math.ceil(count / rows) * rows}:
                if tiles <= min(count + rows - 1, _TILES_PER_BLOCK):
                    choices.append(Parameters(outputs, tiles, rows, columns))
    costs = {one: expected_octaves_of(kernel, device, one) for one in choices}
    promising = [one for one in costs if costs[one] < 0]
    promising.sort(key=lambda one: (costs[one], one.tiles // one.rows))  # weights read less often
    return [one.trace for one in promising[:_MOST_CHOICES]]


def is_winograd(trace: Trace) -> bool:
    """Whether a trace is of this kind."""
    return bool(trace.instructions) and trace.instructions[0].kind == KIND


def parameters_of(trace: Trace) -> Parameters | None:
    """The parameters of a Winograd schedule; None for a schedule of another kind.

    Raises:
        ValueError: it is one, and its parameters are none.
    """
    if not is_winograd(trace):
        return None
    return Parameters.of(trace)


def error_growth(trace: Trace, kernel: Kernel) -> float:
    """How many times more than a plain sum a schedule of a kernel rounds."""
    parameters = parameters_of(trace)
    found = as_convolution(kernel) if parameters is not None else None
    if parameters is None or found is None:
        return 1.0
    return GROWTH[parameters.outputs + found.window[0] - 1]


def fits(kernel: Kernel, device: Device, parameters: Parameters) -> bool:
    """Whether a kernel may have a schedule with these parameters."""
    found = suitable(kernel, device)
    return found is not None and _fits(found, device, parameters)


def shares_of_a_block(blocks: int, groups: int, threads: int) -> int:
    """Into how many parts the groups of columns of a block of tiles are shared out."""
    wanted = math.ceil(threads / blocks)
    return max(share for share in range(1, wanted + 1) if groups % share == 0)


def expected_octaves_of(kernel: Kernel, device: Device, parameters: Parameters) -> float:
    """How much slower than a good direct schedule it should be, in octaves; below 0 if faster.

    Counted in multiply-adds of one core, as many as a vector unit does meanwhile:

        direct      r² C K for each result, and its weights once
        Winograd    a² C K for each tile; some vector instructions for each of the a² values of the
                    transforms, more where a block's values leave the near cache; weights once

    All but the multiply-adds cost the more of them, the more a core does in a cycle. Where it does
    32, weights beyond a second cache's size cost something in each block of tiles, too.

    The costs were fitted to 22 3x3 convolutions of ResNet-18, ResNet-50, GoogLeNet and AlexNet on a
    Zen 4 with AVX-512 (16 a cycle): its error is 0.2 octaves there, 0.3 on 46 convolutions of seven
    other networks, and the first choice is 1 and 4 % slower than the best, on average. The factor
    of 2 and the cost of far weights were then fitted to 30 convolutions of these and VGG-16 on an
    Emerald Rapids (32 a cycle). On 54 of these, a DenseNet, a detector and a U-Net its error is
    0.22 octaves there, and the first choice is 3 % slower.
    """
    found = suitable(kernel, device)
    if found is None:
        return math.inf
    n, height, width, results = found.shape
    channels, window = found.channels, found.window[0]
    values = (parameters.outputs + window - 1) ** 2
    count = n * math.ceil(height / parameters.outputs) * math.ceil(width / parameters.outputs)
    blocks = math.ceil(count / parameters.tiles)
    groups = results // (device.vector_lanes * parameters.columns)
    shares = shares_of_a_block(blocks, groups, device.threads)
    computed = math.ceil(blocks * shares / device.threads) * device.threads * parameters.tiles
    weights, own = values * channels * results / shares, results / shares
    products = computed * weights / _efficiency(parameters, device)
    held_bytes = 4.0 * values * parameters.tiles * (channels + own)
    each = _TRANSFORM_COST + _CACHE_COST * max(0.0, math.log2(held_bytes / _NEAR_CACHE_BYTES))
    transforms = each * computed * values * (channels + own)
    balance = device.multiply_adds / _MULTIPLY_ADDS
    far = max(0.0, balance - 1.0) * max(0.0, 1.0 - _FAR_BYTES / (4.0 * weights))
    passes = computed // parameters.tiles
    streamed = (balance * _STREAM_COST + far * _FAR_COST * passes) * weights
    each_direct = n * height * width / _DIRECT_EFFICIENCY + balance * _STREAM_COST
    direct = window**2 * channels * results * each_direct
    return math.log2((products + balance * transforms + streamed) / direct)


def _efficiency(parameters: Parameters, device: Device) -> float:
    """Share of the multiply-add units' time that a register tile uses."""
    accumulators = parameters.rows * parameters.columns
    if accumulators + parameters.columns >= device.vector_registers:
        return _SPILLED_EFFICIENCY  # some of them live in memory
    return min(1.0, accumulators / _ENOUGH_ACCUMULATORS)


@lru_cache(maxsize=512)
def suitable(kernel: Kernel, device: Device) -> Convolution | None:
    """The kernel as a convolution that Winograd's filtering does in whole vectors; else None."""
    found = as_convolution(kernel)
    if found is None or found.window not in {(window, window) for _, window in WEIGHT}:
        return None
    lanes = device.vector_lanes
    fits = found.channels % lanes == 0 and found.shape[3] % lanes == 0
    return found if fits else None


def _register_tiles(device: Device, vectors: int, count: int) -> list[tuple[int, int]]:
    """Rows and columns of register tiles: a vector for each column, one for a row's value."""
    tiles: list[tuple[int, int]] = []
    for columns in range(2, 0, -1):
        if vectors % columns:
            continue
        most = (device.vector_registers - columns - 1) // columns
        # Few rows leave multiply-adds waiting for each other, many leave tiles unused.
        rows = {most, most // 2, 7, 6, nearest_divisor(count, most, limit=most)} - set(range(4))
        tiles.extend((one, columns) for one in sorted(rows) if one <= min(most, count))
    return tiles


def _fits(found: Convolution, device: Device, parameters: Parameters) -> bool:
    return (
        (parameters.outputs, found.window[0]) in WEIGHT
        and 1 <= parameters.columns <= _MAX_COLUMNS
        and 1 <= parameters.rows <= device.vector_registers
        and parameters.rows <= parameters.tiles <= _TILES_PER_BLOCK
        and parameters.tiles % parameters.rows == 0
        and (found.shape[3] // device.vector_lanes) % parameters.columns == 0
    )
