"""Operators that a few others replace."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from tunebank.model.rewrite.graph import Graph, attributes_of
from tunebank.model.rewrite.replacement import Replacement

_FLOATS = frozenset(
    {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}
)
_UNSIGNED = frozenset(
    {TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64}
)


def drop_dropout(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """Dropout → its input; the mask, if wanted, is all true."""
    training = graph.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else False
    ratio = graph.constant(node.input[1]) if len(node.input) > 1 and node.input[1] else 0.5
    if training is None or ratio is None or (np.any(training) and np.any(ratio)):
        return False
    new.identity(node.input[0], node.output[0])
    if graph.is_wanted(node, 1):
        shape = graph.known_shape(node.input[0], node)
        new.op("Expand", new.constant(True), new.ints(shape), out=node.output[1])
    return True


def fix_eye(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """EyeLike(x) → the matrix: only the shape of x counts."""
    rows, columns = graph.known_shape(node.input[0], node)
    attributes = attributes_of(node)
    kind = int(attributes.get("dtype", 0)) or graph.dtype(node.input[0]) or TensorProto.FLOAT
    eye = np.eye(rows, columns, int(attributes.get("k", 0)))
    new.identity(new.constant(eye, helper.tensor_dtype_to_np_dtype(kind)), node.output[0])
    return True


def one_sided_isinf(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """IsInf that looks for one sign: x = ∞ or x = -∞. TVM looks for both."""
    attributes = attributes_of(node)
    positive, negative = attributes.get("detect_positive", 1), attributes.get("detect_negative", 1)
    if positive and negative:
        return False
    kind = graph.dtype(node.input[0])
    if not positive and not negative:
        shape = graph.known_shape(node.input[0], node)
        new.op("Expand", new.constant(False), new.ints(shape), out=node.output[0])
        return True
    bound = new.scalar(np.inf if positive else -np.inf, kind)
    new.op("Equal", node.input[0], bound, out=node.output[0])
    return True


def compare_one_hot(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """OneHot(i, depth, (off, on)) → on where i is the place, off elsewhere; TVM loses the type."""
    depth = graph.constant(node.input[1])
    rank = graph.rank(node.input[0])
    if depth is None or rank is None:
        return False
    count = int(depth.item())
    axis = int(attributes_of(node).get("axis", -1)) % (rank + 1)
    indices = new.cast(node.input[0], TensorProto.INT64)
    from_end = new.op("Add", indices, new.constant(count, np.int64))
    negative = new.op("Less", indices, new.constant(0, np.int64))
    indices = new.unsqueeze(new.op("Where", negative, from_end, indices), [axis])
    places = np.arange(count).reshape([-1] + [1] * (rank - axis))
    hit = new.op("Equal", indices, new.constant(places, np.int64))
    off, on = (new.squeeze(part, [0]) for part in new.split(node.input[2], 0, [1, 1]))
    new.op("Where", hit, on, off, out=node.output[0])
    return True


def clip_integers(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """Clip of integers → Min and Max: TVM takes infinity for a bound that isn't given."""
    if graph.dtype(node.input[0]) in _FLOATS or graph.opset < 12:
        return False
    low, high = [*node.input[1:], "", ""][:2]
    x = new.op("Max", node.input[0], low) if low else node.input[0]
    new.identity(new.op("Min", x, high) if high else x, node.output[0])
    return True


def unsigned_sign(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """Sign of unsigned integers is at most 1, and never -1."""
    kind = graph.dtype(node.input[0])
    if kind not in _UNSIGNED:
        return False
    new.op("Min", node.input[0], new.scalar(1, kind), out=node.output[0])
    return True


def gather_features(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """ai.onnx.ml ArrayFeatureExtractor(x, i) → Gather along the last axis."""
    rank = graph.rank(node.input[0])
    if rank is None:
        return False
    indices = new.reshape(node.input[1], [-1])
    gathered = new.op("Gather", node.input[0], indices, axis=rank - 1)
    if rank == 1:
        gathered = new.unsqueeze(gathered, [0])
    new.identity(gathered, node.output[0])
    return True


def compare_binarizer(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """ai.onnx.ml Binarizer(x) → x > threshold, as a number."""
    kind = graph.dtype(node.input[0])
    threshold = new.scalar(float(attributes_of(node).get("threshold", 0.0)), kind)
    new.cast(new.op("Greater", node.input[0], threshold), kind, out=node.output[0])
    return True


def open_scaler(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """ai.onnx.ml Scaler(x) → (x - offset) · scale."""
    attributes = attributes_of(node)
    x = node.input[0]
    if graph.dtype(x) != TensorProto.FLOAT:
        x = new.cast(x, TensorProto.FLOAT)
    offset = new.constant(attributes.get("offset", [0.0]), np.float32)
    scale = new.constant(attributes.get("scale", [1.0]), np.float32)
    new.op("Mul", new.op("Sub", x, offset), scale, out=node.output[0])
    return True


def open_linear_regressor(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """ai.onnx.ml LinearRegressor(x) → x · coefficientsᵀ + intercepts."""
    attributes = attributes_of(node)
    if attributes.get("post_transform", "NONE") != "NONE":
        return False
    targets = int(attributes.get("targets", 1))
    coefficients = np.asarray(attributes["coefficients"], np.float32).reshape(targets, -1).T
    x = node.input[0]
    if graph.dtype(x) != TensorProto.FLOAT:
        x = new.cast(x, TensorProto.FLOAT)
    if graph.rank(x) == 1:
        x = new.unsqueeze(x, [0])
    product = new.op("MatMul", x, new.constant(coefficients))
    intercepts = attributes.get("intercepts", [0.0] * targets)
    new.op("Add", product, new.constant(intercepts, np.float32), out=node.output[0])
    return True
