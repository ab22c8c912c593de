"""Depthwise convolutions and poolings, line by line.

    out[n, y, x, k] = max over ry, rx of pad(t)[n, y + ry, x + rx, k]

A thread takes a vector of channels down the image, and keeps as many lines as the window reaches
over (`line_buffer.py`), padded once: no window asks whether it is inside, as MetaSchedule's do.
Pooling of 5x5 with stride 1 takes 9 µs so instead of 206 (10x10x128, a Zen 4 with 2 threads);
depthwise convolutions 0.6 to 1.2 times as long on large images, longer on small ones, where their
weights are what takes time; those of 7x7 and 9x9 0.6 to 0.9 times (an Emerald Rapids). Of 36 to 150
channels that are no multiple of 8, of which TVM makes vectors that LLVM takes apart, a tenth to a
third of the time. Bands of lines are shared out, and of each the groups of channels. A schedule of
this kind is a trace of one step, `Windows`, whose attribute is the number of bands.
"""

from __future__ import annotations

import math
from typing import Any

from tvm import ir
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T  # noqa: N812

from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.schedule.chain import Slide, as_slide
from tunebank.schedule.line_buffer import LineBuffer
from tunebank.schedule.pointwise import begin_program, element, first_of_group, unravelled
from tunebank.schedule.trace import Trace, one_step, whole_numbers

KIND = "Windows"

_OFTEN = 4
_VERY_OFTEN = 16
_MOST_OFTEN = 49
"""Times that each value is read."""
_REACHES = 2
"""How many times as high as its window an image is that a convolution surely pays on."""
_WHOLE = 8
"""What channels are a multiple of if TVM makes vectors of them that LLVM keeps whole."""
_MOST_BANDS = 64


def windows_trace(kernel: Kernel, device: Device, *, clearly: bool) -> Trace | None:
    """The schedule, where it may pay; None elsewhere.

    Args:
        kernel: the kernel.
        device: for its vectors and threads.
        clearly: whether it must be sure to pay: a pooling that reads each value very often, a
            large window on an image that is larger, or channels that make no whole vectors.
    """
    found = as_slide(kernel)
    if found is None or found.window.shape[3] < device.vector_lanes:
        return None
    window = found.window
    often = len(window.taps) / math.prod(window.stride)
    batch, height, _, channels = window.shape
    is_pooling = isinstance(window.reduction.value, ir.TensorLoad)
    is_large = often >= _MOST_OFTEN and height >= _REACHES * window.reach
    is_uneven = not is_pooling and channels % _WHOLE != 0
    pays = is_large or is_uneven or (is_pooling and often >= _VERY_OFTEN)
    if not pays and (clearly or often < _OFTEN):
        return None
    return one_step(KIND, min(math.ceil(device.threads / batch), height, _MOST_BANDS))


def windows_module(kernel: Kernel, device: Device, trace: Trace) -> ir.IRModule:
    """The kernel as a program.

    Raises:
        ValueError: the kernel is not of the kind, or the schedule does not fit it.
    """
    found = as_slide(kernel)
    (bands,) = whole_numbers(trace, 1)
    if found is None or found.window.shape[3] < device.vector_lanes:
        raise ValueError("no window over an image of many channels")
    if not 1 <= bands <= min(_MOST_BANDS, found.window.shape[1]):
        raise ValueError(f"{bands} bands don't fit the kernel")
    return _module(found, device.vector_lanes, bands)


def _module(found: Slide, lanes: int, bands: int) -> ir.IRModule:
    batch, height, _, channels = found.window.shape
    extents = [batch, bands, math.ceil(channels / lanes)]
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        buffers = begin_program(found.kernel)

        def value(place: list[Any]) -> Any:
            return element(
                found.image, place, lambda buffer, at: buffers[buffer][tuple(at)], found.producers
            )

        with T.parallel(0, math.prod(extents)) as task:
            image, band, group = unravelled(task, extents)
            first = first_of_group(group, lanes, channels)
            lines = LineBuffer(found.window, found.padding, buffers, lanes=lanes, vectors=1)

            def fill(line: Any) -> None:
                with T.serial(0, found.padding.width) as x, T.vectorized(0, lanes) as lane:
                    lines.keep(value([image, line, x, first + lane]), line, x, lane)

            start, stop = band * height // bands, (band + 1) * height // bands
            lines.pass_over(image, first, start, stop, fill=fill)
    return ir.IRModule({"main": builder.get()})
