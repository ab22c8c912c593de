"""Normalisations in the forms that TVM's importer has not, or has wrong."""

from __future__ import annotations

import onnx
from onnx import TensorProto

from tunebank.model.rewrite.graph import Graph, attributes_of
from tunebank.model.rewrite.replacement import Replacement


def open_layer_norm(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """LayerNormalization whose mean and inverse deviation are wanted too: TVM gives one result."""
    if not (graph.is_wanted(node, 1) or graph.is_wanted(node, 2)):
        return False
    attributes = attributes_of(node)
    x, rank, kind = node.input[0], graph.rank(node.input[0]), graph.dtype(node.input[0])
    if rank is None:
        return False
    axes = list(range(int(attributes.get("axis", -1)) % rank, rank))
    mean = new.reduce("ReduceMean", x, axes)
    centred = new.op("Sub", x, mean)
    variance = new.reduce("ReduceMean", new.op("Mul", centred, centred), axes)
    epsilon = new.scalar(float(attributes.get("epsilon", 1e-5)), kind)
    inverse = new.op("Reciprocal", new.op("Sqrt", new.op("Add", variance, epsilon)))
    y = new.op("Mul", new.op("Mul", centred, inverse), node.input[1])
    if len(node.input) > 2 and node.input[2]:
        y = new.op("Add", y, node.input[2])
    for value, output in zip((y, mean, inverse), node.output, strict=False):
        if output:
            new.identity(value, output)
    return True


def whole_scale_layer_norm(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """LayerNormalization with a scale or bias that is broadcast: TVM wants all of it."""
    shape = graph.shape(node.input[0])
    if shape is None:
        return False
    attributes = attributes_of(node)
    whole = shape[int(attributes.get("axis", -1)) % len(shape) :]
    given = [name for name in node.input[1:] if name]
    if all(graph.shape(name) in (whole, None) for name in given):
        return False
    wide = [new.op("Expand", name, new.ints(whole)) for name in given]
    outputs = list(node.output)
    new.op_many(node.op_type, node.input[0], *wide, outputs=outputs, **attributes)
    return True


def open_training_batch_norm(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """BatchNormalization that takes mean and variance from the batch itself.

    The running statistics are those before, moved towards the batch's.
    """
    attributes = attributes_of(node)
    if not attributes.get("training_mode", 0):
        return False
    x, scale, bias, mean_before, variance_before = node.input
    rank, kind = graph.rank(x), graph.dtype(x)
    if rank is None:
        return False
    axes = [0, *range(2, rank)]
    column = [-1] + [1] * (rank - 2)
    mean = new.reduce("ReduceMean", x, axes)
    centred = new.op("Sub", x, mean)
    variance = new.reduce("ReduceMean", new.op("Mul", centred, centred), axes)
    epsilon = new.scalar(float(attributes.get("epsilon", 1e-5)), kind)
    normal = new.op("Div", centred, new.op("Sqrt", new.op("Add", variance, epsilon)))
    scaled = new.op("Mul", normal, new.reshape(scale, column))
    new.op("Add", scaled, new.reshape(bias, column), out=node.output[0])
    momentum = float(attributes.get("momentum", 0.9))
    for index, (before, now) in enumerate(((mean_before, mean), (variance_before, variance)), 1):
        if graph.is_wanted(node, index):
            kept = new.op("Mul", before, new.scalar(momentum, kind))
            added = new.op("Mul", new.reshape(now, [-1]), new.scalar(1 - momentum, kind))
            new.op("Add", kept, added, out=node.output[index])
    return True


def open_lp_norm(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """LpNormalization(x) → x / ReduceL1(x) or ReduceL2(x); 0 where the norm is."""
    attributes = attributes_of(node)
    axis, rank, kind = (
        attributes.get("axis", -1),
        graph.rank(node.input[0]),
        graph.dtype(node.input[0]),
    )
    if rank is None:
        return False
    norm = new.reduce(f"ReduceL{attributes.get('p', 2)}", node.input[0], [axis % rank])
    zero = new.scalar(0.0, kind)
    divisor = new.op("Where", new.op("Equal", norm, zero), new.scalar(1.0, kind), norm)
    new.op("Div", node.input[0], divisor, out=node.output[0])
    return True


def open_rms_norm(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """RMSNormalization(x, scale): TVM's fails where the scale has more dimensions than one."""
    rank = graph.rank(node.input[0])
    if rank is None:
        return False
    attributes = attributes_of(node)
    axes = list(range(int(attributes.get("axis", -1)) % rank, rank))
    epsilon = float(attributes.get("epsilon", 1e-5))
    kind = graph.dtype(node.input[0])
    rms_norm(node.input[0], node.input[1], axes, epsilon, kind, new, node.output[0])
    return True


def open_simplified_layer_norm(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """ONNX Runtime's SimplifiedLayerNormalization: without a mean, and so the RMS one."""
    return not graph.is_wanted(node, 1) and open_rms_norm(node, graph, new)


def rms_norm(
    x: str, scale: str, axes: list[int], epsilon: float, kind: int, new: Replacement, out: str
) -> None:
    """Writes x / sqrt(mean(x²) + ε) · scale, computed in float32."""
    half = kind != TensorProto.FLOAT
    wide = new.cast(x, TensorProto.FLOAT) if half else x
    square = new.reduce("ReduceMean", new.op("Mul", wide, wide), axes)
    root = new.op("Sqrt", new.op("Add", square, new.scalar(epsilon, TensorProto.FLOAT)))
    normal = new.op("Div", wide, root)
    new.op("Mul", new.cast(normal, kind) if half else normal, scale, out=out)
