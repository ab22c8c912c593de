"""Transposed convolutions with their padding stated, and what is one in disguise."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from tunebank.model.rewrite.graph import Graph, attributes_of
from tunebank.model.rewrite.replacement import Replacement


def settle_conv_transpose(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """ConvTranspose with `output_shape` or `auto_pad`: the pads that follow from it.

    TVM pads evenly whatever the shape asked for. By the operator's documentation

        total = stride · (in - 1) + output_padding + (kernel - 1) · dilation + 1 - out

    is split between both ends; the odd one goes to the start, with SAME_UPPER to the end.
    """
    attributes = attributes_of(node)
    auto = attributes.pop("auto_pad", "NOTSET")
    asked = attributes.pop("output_shape", None)
    if auto == "NOTSET" and not asked:
        return False
    x, weight = graph.shape(node.input[0]), graph.shape(node.input[1])
    if x is None or weight is None:
        return False
    extents, kernel = x[2:], weight[2:]
    ones = [1] * len(extents)
    strides = attributes.setdefault("strides", ones)
    dilations = attributes.setdefault("dilations", ones)
    more = attributes.setdefault("output_padding", [0] * len(extents))
    stated = bool(asked)
    if not asked:
        if auto == "VALID":
            attributes["pads"] = [0] * (2 * len(extents))
            new.op("ConvTranspose", *node.input, out=node.output[0], **attributes)
            return True
        asked = [extent * stride for extent, stride in zip(extents, strides, strict=True)]
    starts, ends = [], []
    for index, extent in enumerate(extents):
        reach = (kernel[index] - 1) * dilations[index] + 1
        full = strides[index] * (extent - 1) + more[index] + reach
        total = full - asked[-len(extents) :][index]
        if total < 0:  # more than there is: if it is asked for, the rest is padded at the end
            more[index] -= total if stated else 0
            total = 0
        short, long = total // 2, total - total // 2
        starts.append(short if auto == "SAME_UPPER" else long)
        ends.append(long if auto == "SAME_UPPER" else short)
    attributes["pads"] = [*starts, *ends]
    new.op("ConvTranspose", *node.input, out=node.output[0], **attributes)
    return True


def open_col2im(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """Col2Im (N, C·K, L) → (N, C, …): a transposed convolution that puts each value in its place.

    Its weight is one-hot: value k of a block goes to place k of the kernel.
    """
    x = graph.shape(node.input[0])
    image, block = graph.constant(node.input[1]), graph.constant(node.input[2])
    if x is None or image is None or block is None:
        return False
    attributes = attributes_of(node)
    dims = len(image)
    strides = attributes.get("strides", [1] * dims)
    dilations = attributes.get("dilations", [1] * dims)
    pads = attributes.get("pads", [0] * (2 * dims))
    area = int(np.prod(block))
    channels = x[1] // area
    places = [
        (int(image[i]) + pads[i] + pads[dims + i] - dilations[i] * (int(block[i]) - 1) - 1)
        // strides[i]
        + 1
        for i in range(dims)
    ]
    # What the last blocks don't reach stays zero; a transposed convolution leaves it out.
    reached = [
        (places[i] - 1) * strides[i] + dilations[i] * (int(block[i]) - 1) + 1 for i in range(dims)
    ]
    rest = [int(image[i]) + pads[i] + pads[dims + i] - reached[i] for i in range(dims)]
    dtype = helper.tensor_dtype_to_np_dtype(graph.dtype(node.input[0]))
    weight = new.constant(np.eye(area).reshape(area, 1, *map(int, block)), dtype)
    blocks = new.reshape(node.input[0], [x[0] * channels, area, *places])
    spread = new.op(
        "ConvTranspose",
        blocks,
        weight,
        strides=list(strides),
        dilations=list(dilations),
        pads=[*pads[:dims], *(pads[dims + i] - rest[i] for i in range(dims))],
    )
    if any(pads[dims + i] < rest[i] for i in range(dims)):
        return False
    new.reshape(spread, [x[0], channels, *map(int, image)], out=node.output[0])
    return True
