"""MaxPool that also gives where each maximum was.

TVM's pooling gives the maxima alone. The places are found by comparing the entries of each window,
one shifted and strided slice of the input for each of them:

    slices (N, C, H', W', K) ─ArgMax─▶ which entry of the window ─▶ its index in the input
"""

from __future__ import annotations

import itertools

import numpy as np
import onnx
from onnx import TensorProto

from tunebank.model.rewrite.graph import Graph, attributes_of
from tunebank.model.rewrite.replacement import Replacement


def open_max_indices(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """MaxPool over two dimensions with indices, of floats."""
    x = graph.shape(node.input[0])
    if not graph.is_wanted(node, 1) or x is None or len(x) != 4:
        return False
    if graph.dtype(node.input[0]) != TensorProto.FLOAT or graph.opset < 11:
        return False
    attributes = attributes_of(node)
    if attributes.get("auto_pad", "NOTSET") != "NOTSET":
        return False
    kernel, ones = attributes["kernel_shape"], [1, 1]
    strides, dilations = attributes.get("strides", ones), attributes.get("dilations", ones)
    pads = attributes.get("pads", [0, 0, 0, 0])
    result = _extents(x, kernel, strides, dilations, pads, bool(attributes.get("ceil_mode", 0)))
    by_column = attributes.pop("storage_order", 0)
    new.op("MaxPool", node.input[0], out=node.output[0], **attributes)
    # How far the last windows reach, which with `ceil_mode` is beyond the padding.
    reach = [
        (result[2 + i] - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 for i in range(2)
    ]
    ends = [max(reach[i] - x[2 + i] - pads[i], 0) for i in range(2)]
    padding = new.ints([0, 0, pads[0], pads[1], 0, 0, ends[0], ends[1]])
    padded = new.op("Pad", node.input[0], padding, new.constant(np.float32(-np.inf)))
    slices = []
    for row, column in itertools.product(*map(range, kernel)):
        starts = [row * dilations[0], column * dilations[1]]
        stops = [starts[i] + (result[2 + i] - 1) * strides[i] + 1 for i in range(2)]
        part = new.op(
            "Slice", padded, new.ints(starts), new.ints(stops), new.ints([2, 3]), new.ints(strides)
        )
        slices.append(new.unsqueeze(part, [4]))
    which = new.op("ArgMax", new.concat(slices, 4), axis=4, keepdims=0)
    within, corners = _places(x, result, kernel, strides, dilations, pads, bool(by_column))
    chosen = new.op("Gather", new.constant(within, np.int64), which, axis=0)
    new.op("Add", chosen, new.constant(corners, np.int64), out=node.output[1])
    return True


def _extents(
    x: tuple[int, ...],
    kernel: list[int],
    strides: list[int],
    dilations: list[int],
    pads: list[int],
    ceil: bool,
) -> tuple[int, ...]:
    """The result's extents. Rounded up, a window that would start behind the input is left out.

    (Shape inference counts such windows, ONNX Runtime and TVM don't.)
    """
    extents = []
    for index in range(2):
        free = x[2 + index] + pads[index] + pads[2 + index]
        free -= (kernel[index] - 1) * dilations[index] + 1
        count = -(-free // strides[index]) + 1 if ceil else free // strides[index] + 1
        if (count - 1) * strides[index] >= x[2 + index] + pads[index]:
            count -= 1
        extents.append(count)
    return (*x[:2], *extents)


def _places(
    x: tuple[int, ...],
    result: tuple[int, ...],
    kernel: list[int],
    strides: list[int],
    dilations: list[int],
    pads: list[int],
    by_column: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Index of each entry within its window (K,), and of the windows' corners (N, C, H', W')."""
    height, width = x[2:]
    steps = (1, height) if by_column else (width, 1)
    rows, columns = np.arange(kernel[0]) * dilations[0], np.arange(kernel[1]) * dilations[1]
    within = (rows[:, None] * steps[0] + columns * steps[1]).reshape(-1)
    top = np.arange(result[2]) * strides[0] - pads[0]
    left = np.arange(result[3]) * strides[1] - pads[1]
    corners = top[:, None] * steps[0] + left * steps[1]
    planes = np.arange(x[0] * x[1]).reshape(x[0], x[1], 1, 1) * (height * width)
    return within, planes + corners
