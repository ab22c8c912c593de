"""Fourier transforms as products with matrices of cosines and sines.

    X[k] = Σₜ x[t] · exp(-2πi·k·t / L)

ONNX keeps complex numbers as a last dimension of 2: real part, imaginary part. What a transform
does along one axis is then a matrix (entries · parts before, entries · parts after). For the
lengths that models have in them, some hundreds, a product costs little more than the fast way.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper

from tunebank.errors import ModelError
from tunebank.model.rewrite.graph import Graph, attributes_of, described
from tunebank.model.rewrite.replacement import Replacement

MAX_LENGTH = 4096
"""The longest transform that is written as a matrix; 4096 gives one of 64 MB."""


def open_dft(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """DFT(x, length, axis): forward or back, of real or complex numbers, one-sided or not."""
    shape = graph.known_shape(node.input[0], node)
    found = _axis_and_points(node, graph)
    if found is None:
        return False
    number, points = found
    inverse, onesided = _direction(node)
    entries, parts = shape[number], shape[-1]
    _check_length(points, node)
    if inverse and onesided:
        matrix = _half_back(entries, points)
    else:
        matrix = _transform(entries, points, parts, inverse, onesided)
    used = min(entries, matrix.shape[0])
    x = new.slice(node.input[0], number, 0, used) if used < entries else node.input[0]
    _along_axis(x, number, len(shape), matrix, node, graph, new)
    return True


def open_stft(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """STFT(x, step, window, length) of real numbers: a convolution with one filter a frequency.

    x (B, T) or (B, T, 1) → (B, frames, frequencies, 2)
    """
    shape = graph.known_shape(node.input[0], node)
    signal, step, window = [*node.input, ""][:3]
    stride = graph.constant(step)
    points = _frame_points(node, graph)
    if stride is None or not points or (len(shape) == 3 and shape[2] != 1):
        return False
    _check_length(points, node)
    onesided = bool(attributes_of(node).get("onesided", 1))
    kind = graph.dtype(signal)
    matrix = _transform(points, points, 1, inverse=False, onesided=onesided)
    filters = matrix.reshape(points, -1).T  # (frequencies · 2, points)
    weight = new.constant(filters, helper.tensor_dtype_to_np_dtype(kind))
    if window:
        weight = new.op("Mul", weight, window)
    weight = new.reshape(weight, [len(filters), 1, 1, points])
    x = new.reshape(signal, [shape[0], 1, 1, shape[1]])
    y = new.op("Conv", x, weight, strides=[1, int(stride.item())])
    frames = (shape[1] - points) // int(stride.item()) + 1
    parts = new.reshape(y, [shape[0], len(filters) // 2, 2, frames])
    new.transpose(parts, [0, 3, 1, 2], out=node.output[0])
    return True


def transform_points(node: onnx.NodeProto, graph: Graph) -> int | None:
    """The length of a DFT or an STFT; None if it is known when the model runs.

    Raises:
        ModelError: the shape of its input isn't known.
    """
    if node.op_type == "STFT":
        return _frame_points(node, graph)
    found = _axis_and_points(node, graph)
    return found[1] if found is not None else None


def _frame_points(node: onnx.NodeProto, graph: Graph) -> int | None:
    """Of an STFT."""
    _, _, window, length = [*node.input, "", ""][:4]
    if length:
        frame = graph.constant(length)
        return int(frame.item()) if frame is not None else None
    window_shape = graph.shape(window) if window else None
    return window_shape[0] if window_shape else None


def _axis_and_points(node: onnx.NodeProto, graph: Graph) -> tuple[int, int] | None:
    """Of a DFT: along which axis it goes, and how many points it has."""
    shape = graph.known_shape(node.input[0], node)
    inputs = [*node.input, "", ""][:3]
    length, axis = (graph.constant(name) if name else None for name in inputs[1:])
    if (inputs[1] and length is None) or (inputs[2] and axis is None):
        return None
    default = attributes_of(node).get("axis", 1 if graph.opset < 20 else -2)
    number = int(default if axis is None else axis.item()) % len(shape)
    if length is not None:
        return number, int(length.item())
    from_half = all(_direction(node))
    return number, 2 * (shape[number] - 1) if from_half else shape[number]


def _direction(node: onnx.NodeProto) -> tuple[bool, bool]:
    """Of a DFT: whether it goes back, and whether one side of a spectrum is left out."""
    attributes = attributes_of(node)
    return bool(attributes.get("inverse", 0)), bool(attributes.get("onesided", 0))


def _check_length(points: int, node: onnx.NodeProto) -> None:
    if points > MAX_LENGTH:
        raise ModelError(
            f"{described(node)}: a transform of {points} points, at most {MAX_LENGTH} are "
            "written as a matrix; compute it outside of the model"
        )


def _transform(entries: int, points: int, parts: int, inverse: bool, onesided: bool) -> np.ndarray:
    """The matrix (entries, parts, frequencies, 2) of a transform of so many points.

    Entries beyond the points are cut off, entries that miss are zero: both need no row.
    """
    results = points // 2 + 1 if onesided else points
    rows = min(entries, points)
    angle = 2 * np.pi * np.outer(np.arange(rows), np.arange(results)) / points
    cos, sin = np.cos(angle), np.sin(angle) * (1 if inverse else -1)
    real = np.stack([cos, sin], axis=-1)[:, None]
    if parts == 2:
        imaginary = np.stack([-sin, cos], axis=-1)[:, None]
        real = np.concatenate([real, imaginary], axis=1)
    return np.asarray(real / points if inverse else real)


def _half_back(entries: int, points: int) -> np.ndarray:
    """The matrix (entries, 2, points, 1) from one half of a spectrum to real numbers.

    Every frequency of the other half is the conjugate of one of this: but for the first, and the
    middle one where there is one, each counts twice.
    """
    rows = min(entries, points // 2 + 1)
    angle = 2 * np.pi * np.outer(np.arange(rows), np.arange(points)) / points
    times = np.full((rows, 1), 2.0)
    times[0] = 1.0
    if points % 2 == 0 and rows == points // 2 + 1:
        times[-1] = 1.0
    both = np.stack([times * np.cos(angle), -times * np.sin(angle)], axis=1)
    return np.asarray(both[..., None] / points)


def _along_axis(
    x: str,
    number: int,
    rank: int,
    matrix: np.ndarray,
    node: onnx.NodeProto,
    graph: Graph,
    new: Replacement,
) -> None:
    """Multiplies an axis and the last one, together, by a matrix."""
    rows, parts, results, out_parts = matrix.shape
    others = [axis for axis in range(rank - 1) if axis != number]
    perm = [*others, number, rank - 1]
    dtype: Any = helper.tensor_dtype_to_np_dtype(graph.dtype(node.input[0]))
    weight = new.constant(matrix.reshape(rows * parts, results * out_parts), dtype)
    shape = graph.known_shape(node.input[0], node)
    kept = [shape[axis] for axis in others]
    flat = new.reshape(new.transpose(x, perm), [*kept, rows * parts])
    product = new.reshape(new.op("MatMul", flat, weight), [*kept, results, out_parts])
    new.transpose(product, np.argsort(perm).tolist(), out=node.output[0])
