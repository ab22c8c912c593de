"""Where each entry of a resized axis comes from: which entries of the input, and with what weight.

The formulas are those of ONNX's Resize, in float32 and in the order in which ONNX Runtime computes
them: whether 2.5 is rounded up or down depends on the last bit. The antialiasing filter is that
of Pillow's `resize`, which ONNX Runtime follows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tunebank.errors import ModelError


@dataclass(frozen=True)
class Axis:
    """One axis to resize.

    Attributes:
        extent: before.
        result: after.
        scale: what the node states, which may be other than the ratio of both.
        start: where `tf_crop_and_resize` starts to cut, from 0 to 1.
        end: where it ends.
    """

    extent: int
    result: int
    scale: float
    start: float = 0.0
    end: float = 1.0

    @property
    def is_kept(self) -> bool:
        """Whether nothing happens along this axis."""
        return self.extent == self.result and self.scale == 1.0


@dataclass(frozen=True)
class Method:
    """How to resize; the attributes of the node by their names."""

    mode: str
    coordinates: str
    nearest_mode: str
    cubic_coeff_a: float
    exclude_outside: bool
    antialias: bool


@dataclass(frozen=True)
class Taps:
    """Where the entries of a resized axis come from.

    Attributes:
        extent: how many entries the input has.
        indices: (taps, result), entries of the input.
        weights: (taps, result), float32; they add up to 1.
    """

    extent: int
    indices: np.ndarray
    weights: np.ndarray


def source_positions(axis: Axis, coordinates: str) -> np.ndarray:
    """The position in the input of each entry of the result; float32 (result,).

    Raises:
        ModelError: a mode that ONNX has not.
    """
    if axis.is_kept and coordinates != "tf_crop_and_resize":
        return np.arange(axis.result, dtype=np.float32)
    x = np.arange(axis.result, dtype=np.float32)
    one, half = np.float32(1), np.float32(0.5)
    scale, extent = np.float32(axis.scale), np.float32(axis.extent)
    modes: dict[str, Callable[[], np.ndarray]] = {
        "half_pixel": lambda: (x + half) / scale - half,
        "half_pixel_symmetric": lambda: _symmetric(axis, x, scale, extent),
        "pytorch_half_pixel": lambda: (x + half) / scale - half if axis.result > 1 else x * 0,
        "asymmetric": lambda: x / scale,
        "tf_half_pixel_for_nn": lambda: (x + half) / scale,
        "align_corners": lambda: (
            x * 0 if axis.result == 1 else x * (extent - one) / np.float32(axis.result - 1)
        ),
        "tf_crop_and_resize": lambda: _cropped(axis, x),
    }
    if coordinates not in modes:
        raise ModelError(f"Resize has no coordinate_transformation_mode {coordinates!r}")
    return modes[coordinates]().astype(np.float32)


def taps_of(axis: Axis, method: Method) -> Taps:
    """Which entries of the input make up each entry of the result."""
    if method.antialias and method.mode != "nearest" and axis.scale < 1:
        return _antialiased(axis, method)
    positions = source_positions(axis, method.coordinates)
    if method.mode == "nearest":
        return _nearest(axis, positions, method.nearest_mode)
    if method.mode == "linear":
        return _linear(axis, positions)
    if method.mode == "cubic":
        return _cubic(axis, positions, method)
    raise ModelError(f"Resize has no mode {method.mode!r}")


def _symmetric(axis: Axis, x: np.ndarray, scale: np.float32, extent: np.float32) -> np.ndarray:
    half = np.float32(0.5)
    adjustment = np.float32(axis.result) / (scale * extent)
    offset = extent / 2 * (np.float32(1) - adjustment)
    return np.asarray(offset + (x + half) / scale - half)


def _cropped(axis: Axis, x: np.ndarray) -> np.ndarray:
    last = np.float32(axis.extent - 1)
    start, end = np.float32(axis.start), np.float32(axis.end)
    if axis.result == 1:
        return np.asarray(x * 0 + np.float32(0.5) * (start + end) * last)
    return np.asarray(start * last + x * (end - start) * last / np.float32(axis.result - 1))


def _nearest(axis: Axis, positions: np.ndarray, rounding: str) -> Taps:
    half = np.float32(0.5)
    if rounding == "simple":  # before version 11
        rounding = "ceil" if axis.scale < 1 else "floor"
    rounded: dict[str, Callable[[], np.ndarray]] = {
        "round_prefer_floor": lambda: np.where(
            positions == np.floor(positions) + half, np.floor(positions), _half_away(positions)
        ),
        "round_prefer_ceil": lambda: _half_away(positions),
        "floor": lambda: np.floor(positions),
        "ceil": lambda: np.ceil(positions),
    }
    if rounding not in rounded:
        raise ModelError(f"Resize has no nearest_mode {rounding!r}")
    indices = np.clip(rounded[rounding]().astype(np.int64), 0, axis.extent - 1)
    return Taps(axis.extent, indices[None], np.ones((1, axis.result), np.float32))


def _half_away(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.trunc(values + np.copysign(np.float32(0.5), values)))


def _linear(axis: Axis, positions: np.ndarray) -> Taps:
    held = np.clip(positions, 0, axis.extent - 1)
    left = np.minimum(held.astype(np.int64), axis.extent - 1)
    right = np.minimum(left + 1, axis.extent - 1)
    share = (held - left).astype(np.float32)
    return Taps(axis.extent, np.stack([left, right]), np.stack([1 - share, share]))


def _cubic(axis: Axis, positions: np.ndarray, method: Method) -> Taps:
    base = np.floor(positions).astype(np.int64)
    share = positions - base
    distances = np.stack([share + 1, share, 1 - share, 2 - share])
    weights = _cubic_filter(distances, method.cubic_coeff_a)
    indices = base + np.arange(-1, 3)[:, None]
    if method.exclude_outside:
        weights = weights * ((indices >= 0) & (indices < axis.extent))
        weights = weights / weights.sum(axis=0)
    return Taps(axis.extent, np.clip(indices, 0, axis.extent - 1), weights.astype(np.float32))


def _cubic_filter(distances: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic convolution kernel (IEEE Trans. ASSP 29, 1981, equation 4) at |x|."""
    x = np.abs(distances)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _linear_filter(distances: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(1 - np.abs(distances), 0.0))


def _antialiased(axis: Axis, method: Method) -> Taps:
    """The filter stretched over all input entries that an entry of the result covers."""
    stretch = 1 / axis.scale
    support = (1 if method.mode == "linear" else 2) * stretch
    # Positions are those of pixel centres; the filter counts from the pixels' edges.
    centres = source_positions(axis, method.coordinates).astype(np.float64) + 0.5
    count = 2 * math.ceil(support) + 1
    first = np.floor(centres - support + 0.5).astype(np.int64)
    indices = first + np.arange(count)[:, None]
    distances = (indices + 0.5 - centres) / stretch
    if method.mode == "linear":
        weights = _linear_filter(distances)
    else:
        weights = _cubic_filter(distances, method.cubic_coeff_a)
    if method.exclude_outside:  # else what lies outside counts for the entry at the edge
        weights = weights * ((indices >= 0) & (indices < axis.extent))
    weights = weights / weights.sum(axis=0)
    return Taps(axis.extent, np.clip(indices, 0, axis.extent - 1), weights.astype(np.float32))
