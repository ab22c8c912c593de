"""Resize and Upsample in the forms that TVM's importer has not, or has wrong.

TVM takes the ratio of the sizes for the scale, which it is only where the scaled size is whole; it
knows no antialiasing, no axes, no policies. What it has right stays a Resize, with sizes given
for all axes. All else becomes weighted sums of gathered entries, axis by axis:

    y = w₀ · Gather(x, i₀) + w₁ · Gather(x, i₁)     (two for linear, four for cubic)

or, where an entry is made up of many others, a product with the matrix of their weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from tunebank.model.rewrite.graph import Graph, Shape, attributes_of
from tunebank.model.rewrite.replacement import Replacement
from tunebank.model.rewrite.resampling import Axis, Method, Taps, source_positions, taps_of

_MANY_TAPS = 4
_IN_TVM = {"half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"}


def settle_resize(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """Resize, in any version, and Upsample, which it was called before 10."""
    shape = graph.shape(node.input[0])
    if shape is None:
        return False
    attributes = attributes_of(node)
    method = _method(node, attributes, graph)
    axes = _axes(node, shape, attributes, graph)
    if axes is None:
        return False
    if _is_in_tvm(axes, method, graph.dtype(node.input[0])):
        return _with_sizes(node, axes, attributes, graph, new)
    _write(node, axes, method, float(attributes.get("extrapolation_value", 0.0)), graph, new)
    return True


def _axes(
    node: onnx.NodeProto, shape: Shape, attributes: dict[str, Any], graph: Graph
) -> list[Axis] | None:
    """What happens to each axis; None if it isn't constant."""
    roi, scales, sizes = _parameters(node, attributes, graph)
    given = scales if scales is not None else sizes
    cuts = attributes.get("coordinate_transformation_mode") == "tf_crop_and_resize"
    if given is None or (cuts and roi is None):
        return None
    rank = len(shape)
    chosen = [axis % rank for axis in attributes.get("axes", range(rank))]
    if scales is None:
        policy = attributes.get("keep_aspect_ratio_policy", "stretch")
        scales, sizes = _scales_of(given, [shape[axis] for axis in chosen], policy)
    results = [Axis(extent, extent, 1.0) for extent in shape]
    for index, axis in enumerate(chosen):
        scale = float(np.float32(scales[index]))
        result = int(np.float32(shape[axis]) * np.float32(scale))  # as ONNX Runtime rounds
        start, end = (0.0, 1.0) if roi is None else (roi[index], roi[len(chosen) + index])
        whole = result if sizes is None else int(sizes[index])
        results[axis] = Axis(shape[axis], whole, scale, float(start), float(end))
    return results


def _parameters(
    node: onnx.NodeProto, attributes: dict[str, Any], graph: Graph
) -> tuple[Any, Any, Any]:
    """Region, scales and sizes; each None if it isn't given, or isn't constant."""
    if "scales" in attributes:  # Upsample before 9
        return None, np.asarray(attributes["scales"], np.float32), None
    names = [*node.input[1:], "", "", ""]
    if graph.opset < 11 or node.op_type == "Upsample":
        names = ["", names[0], ""]
    values = [graph.constant(name) if name else None for name in names[:3]]
    return tuple(value if value is not None and value.size else None for value in values)  # type: ignore[return-value]


def _scales_of(sizes: Any, extents: list[int], policy: str) -> tuple[list[float], list[int]]:
    ratios = [
        np.float32(size) / np.float32(extent) for size, extent in zip(sizes, extents, strict=True)
    ]
    if policy == "stretch":
        return [float(ratio) for ratio in ratios], [int(size) for size in sizes]
    ratio = min(ratios) if policy == "not_larger" else max(ratios)
    rounded = [int(np.floor(ratio * np.float32(extent) + np.float32(0.5))) for extent in extents]
    return [float(ratio)] * len(extents), rounded


def _method(node: onnx.NodeProto, attributes: dict[str, Any], graph: Graph) -> Method:
    old = graph.opset < 11 or node.op_type == "Upsample"
    mode = attributes.get("mode", "nearest")
    return Method(
        mode={"bilinear": "linear", "trilinear": "linear"}.get(mode, mode),
        coordinates="asymmetric"
        if old
        else attributes.get("coordinate_transformation_mode", "half_pixel"),
        nearest_mode="simple" if old else attributes.get("nearest_mode", "round_prefer_floor"),
        cubic_coeff_a=float(attributes.get("cubic_coeff_a", -0.75)),
        exclude_outside=bool(attributes.get("exclude_outside", 0)),
        antialias=bool(attributes.get("antialias", 0)),
    )


def _is_in_tvm(axes: list[Axis], method: Method, kind: int) -> bool:
    """Whether TVM resizes so, with these numbers."""
    if len(axes) != 4 or not all(axis.is_kept for axis in axes[:2]):
        return False
    if kind != TensorProto.FLOAT or method.antialias or method.coordinates not in _IN_TVM:
        return False
    if any(axis.scale * axis.extent != axis.result for axis in axes):
        return False
    if method.mode == "cubic":
        return False
    if method.mode == "nearest":
        return all(_is_repetition(axis, method) for axis in axes)
    # A ratio of floats, and aligned corners divide by zero for a single entry.
    return all(axis.result > 1 for axis in axes[2:])


def _is_repetition(axis: Axis, method: Method) -> bool:
    """Whether each entry is repeated, so that rounding is out of the question."""
    if axis.result % axis.extent:
        return False
    expected = np.arange(axis.result) // (axis.result // axis.extent)
    return bool((taps_of(axis, method).indices[0] == expected).all())


def _with_sizes(
    node: onnx.NodeProto,
    axes: list[Axis],
    attributes: dict[str, Any],
    graph: Graph,
    new: Replacement,
) -> bool:
    """A Resize that TVM has right, in its one form: sizes for all axes."""
    if graph.opset < 11:
        return False  # TVM takes the scales of an Upsample; they are whole
    stated = {"axes", "keep_aspect_ratio_policy"} & attributes.keys()
    if len(node.input) == 4 and node.input[3] and not stated:
        return False
    for name in ("axes", "keep_aspect_ratio_policy", "antialias"):
        attributes.pop(name, None)
    if attributes.get("mode", "nearest") == "nearest":
        attributes |= {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    sizes = new.ints([axis.result for axis in axes])
    new.op("Resize", node.input[0], "", "", sizes, out=node.output[0], **attributes)
    return True


def _write(
    node: onnx.NodeProto,
    axes: list[Axis],
    method: Method,
    outside: float,
    graph: Graph,
    new: Replacement,
) -> None:
    kind = graph.dtype(node.input[0])
    y = node.input[0]
    inexact = method.mode != "nearest"
    if inexact and kind != TensorProto.FLOAT:
        y = new.cast(y, TensorProto.FLOAT)
    cropped = method.coordinates == "tf_crop_and_resize"
    for number, axis in enumerate(axes):
        if axis.is_kept and not (cropped and (axis.start, axis.end) != (0.0, 1.0)):
            continue
        y = _resampled(y, number, len(axes), taps_of(axis, method), new)
    if cropped:
        y = _with_outside(y, axes, outside, kind if not inexact else TensorProto.FLOAT, new)
    if inexact and kind != TensorProto.FLOAT:
        y = new.cast(y, kind)
    new.identity(y, node.output[0])


def _resampled(x: str, number: int, rank: int, taps: Taps, new: Replacement) -> str:
    """One axis resampled."""
    if len(taps.indices) == 1:
        return new.op("Gather", x, new.ints(taps.indices[0].tolist()), axis=number)
    if len(taps.indices) > _MANY_TAPS:
        return _multiplied(x, number, rank, taps, new)
    column = [-1] + [1] * (rank - number - 1)
    total = ""
    for indices, weights in zip(taps.indices, taps.weights, strict=True):
        entries = new.op("Gather", x, new.ints(indices.tolist()), axis=number)
        part = new.op("Mul", entries, new.constant(weights.reshape(column)))
        total = new.op("Add", total, part) if total else part
    return total


def _multiplied(x: str, number: int, rank: int, taps: Taps, new: Replacement) -> str:
    """One axis resampled by a matrix of all weights (extent, result)."""
    result = taps.indices.shape[1]
    matrix = np.zeros((taps.extent, result), np.float32)
    for indices, weights in zip(taps.indices, taps.weights, strict=True):
        np.add.at(matrix, (indices, np.arange(result)), weights)
    perm = [*(axis for axis in range(rank) if axis != number), number]
    turned = new.transpose(x, perm)
    turned = new.op("MatMul", turned, new.constant(matrix))
    return new.transpose(turned, np.argsort(perm).tolist())


def _with_outside(y: str, axes: list[Axis], outside: float, kind: int, new: Replacement) -> str:
    """What lies outside of the input takes the value that the node states."""
    inside = np.ones([1] * len(axes), bool)
    for number, axis in enumerate(axes):
        positions = source_positions(axis, "tf_crop_and_resize")
        shape = [1] * len(axes)
        shape[number] = -1
        inside = inside & ((positions >= 0) & (positions <= axis.extent - 1)).reshape(shape)
    if inside.all():
        return y
    return new.op("Where", new.constant(inside), y, new.scalar(outside, kind))
