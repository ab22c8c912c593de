"""Convolutions and pooling over one dimension as such over two, the first of extent 1.

    y = Conv(x, w)     x (N, C, L), w (M, C, K)
    ─▶ y = Squeeze(Conv(Unsqueeze(x), Unsqueeze(w)))     (N, C, 1, L), (M, C, 1, K)

TVM's layout pass, its schedules and the bank know convolutions over two dimensions.
"""

from __future__ import annotations

from typing import Any

import onnx

from tunebank.model.rewrite.graph import Graph, attributes_of
from tunebank.model.rewrite.replacement import Replacement

_HEIGHT = 2  # where the new dimension stands in (N, C, 1, L)

# What each attribute says of the new dimension: of pads there is one at either end.
_NEUTRAL: dict[str, int] = {
    "kernel_shape": 1,
    "strides": 1,
    "dilations": 1,
    "output_padding": 0,
    "output_shape": 1,
}


def widen_conv(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """Conv and ConvTranspose over (N, C, L), with weights of three dimensions."""
    weight = node.input[1]
    if graph.rank(weight) != 3:
        return False
    inputs = [new.unsqueeze(node.input[0], [_HEIGHT]), _widened_weight(weight, graph, new)]
    inputs += node.input[2:]
    result = new.op(node.op_type, *inputs, **_widened(node))
    new.squeeze(result, [_HEIGHT], out=node.output[0])
    return True


def widen_pool(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """Pooling over (N, C, L); indices that MaxPool gives count in a plane of height 1 alike."""
    if graph.rank(node.input[0]) != 3:
        return False
    attributes = _widened(node)
    attributes.pop("storage_order", None)  # the order of the dimensions in indices: one is 1
    outputs = [name for name in node.output if name]
    x = new.unsqueeze(node.input[0], [_HEIGHT])
    results = new.op_many(node.op_type, x, outputs=len(outputs), **attributes)
    for result, output in zip(results, outputs, strict=True):
        new.squeeze(result, [_HEIGHT], out=output)
    return True


def settle_pool_pads(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """Pooling with `auto_pad`: the pads that follow from it; TVM computes other ones.

    ceil(in / stride) windows are asked for; what they reach beyond the input is split between
    both ends, and the odd one goes to the start with SAME_LOWER, to the end with SAME_UPPER. As
    ONNX Runtime does, windows count as if they weren't dilated, and read as they are.
    """
    attributes = attributes_of(node)
    auto = attributes.pop("auto_pad", "NOTSET")
    if auto == "NOTSET":
        return False
    extents = graph.known_shape(node.input[0], node)[2:]
    ones = [1] * len(extents)
    strides, dilations = (attributes.get(name, ones) for name in ("strides", "dilations"))
    round_up = attributes.get("ceil_mode", 0)
    starts, ends = [], []
    for index, extent in enumerate(extents):
        windows = -(-extent // strides[index])
        reach = (windows - 1) * strides[index] + attributes["kernel_shape"][index]
        total = reach - extent
        # A window shorter than its stride asks for negative pads; the quotient is cut off.
        start = int((total + (auto == "SAME_LOWER")) / 2)
        if total < 0:  # what the last window reads is not cut off
            span = (attributes["kernel_shape"][index] - 1) * dilations[index] + 1
            room = reach - span
            steps = -(-room // strides[index]) if round_up else room // strides[index]
            total = steps * strides[index] + span - extent
        starts.append(start)
        ends.append(total - start)
    pads = [0] * (2 * len(extents)) if auto == "VALID" else [*starts, *ends]
    if min(pads) < 0 and graph.is_wanted(node, 1):
        return False  # what is cut off would count in the indices
    attributes["pads"] = [max(pad, 0) for pad in pads]
    x = _cropped(node.input[0], extents, pads, new)
    outputs = [name for name in node.output if name]
    new.op_many(node.op_type, x, outputs=outputs, **attributes)
    return True


def _cropped(x: str, extents: tuple[int, ...], pads: list[int], new: Replacement) -> str:
    """The value without what negative pads cut off."""
    for index, extent in enumerate(extents):
        start, end = min(pads[index], 0), min(pads[len(extents) + index], 0)
        if start or end:
            x = new.slice(x, 2 + index, -start, extent + end)
    return x


def _widened(node: onnx.NodeProto) -> dict[str, Any]:
    attributes = attributes_of(node)
    for name, neutral in _NEUTRAL.items():
        values = attributes.get(name)
        if isinstance(values, list):
            attributes[name] = [neutral, *values]
    pads = attributes.get("pads")
    if isinstance(pads, list):
        attributes["pads"] = [0, pads[0], 0, pads[1]]
    return attributes


def _widened_weight(weight: str, graph: Graph, new: Replacement) -> str:
    tensor = graph.initializer(weight)
    if tensor is None or graph.uses(weight) != 1:
        return new.unsqueeze(weight, [_HEIGHT])
    # The values keep their order, so that they needn't be read.
    return graph.reshaped_initializer(weight, [*tensor.dims[:2], 1, tensor.dims[2]])
