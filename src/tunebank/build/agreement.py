"""How far a compiled graph agrees with its ONNX file, if each kernel is right and the result wrong.

Kernels and ONNX nodes don't correspond by name: several nodes are one kernel, results lie in
another layout, constants are folded. But what a node computes is often what some kernel computes,
in another order of elements. So results are compared by what no order changes, a *print*: size,
2-norm, sum, least and largest value. A node is accounted for if its print, or that of a node that
depends on it, is among the kernels'. The first node that is not is where to look:

    Conv ─▶ Relu ─▶ Conv ─▶ Transpose ─▶ Add ─▶ ...
     ·       found    ·         ·          ·          · not found: "from node 'Conv' on"
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from tunebank.runtime.feed import Array, Feed

_TOLERANCE = 1e-3
_LEAST_SIZE = 8
"""Smaller results are alike by chance."""
_RESULTS_PER_RUN = 64
"""All at once they might not fit into memory."""
_FOLDER_OPTION = "session.model_external_initializers_file_folder_path"


@dataclass(frozen=True)
class Print:
    """What no order of the elements changes: size, 2-norm, sum, least and largest value."""

    size: int
    norm: float
    total: float
    least: float
    largest: float

    @classmethod
    def of(cls, array: Array) -> Print | None:
        """The print of a floating-point result; None if it is too small to tell, or not finite."""
        if array.dtype.kind in "iub" or array.size < _LEAST_SIZE:
            return None
        values = array.astype(np.float64)
        if not np.isfinite(values).all():
            return None
        norm = float(np.linalg.norm(values))
        return cls(values.size, norm, float(values.sum()), float(values.min()), float(values.max()))

    def is_like(self, other: Print) -> bool:
        """Whether both may be of the same elements, to within rounding."""
        if self.size != other.size:
            return False
        slack = _TOLERANCE * max(self.norm, other.norm)
        return (
            abs(self.norm - other.norm) <= slack
            # A sum of n errors of norm e is at most sqrt(n) e.
            and abs(self.total - other.total) <= slack * self.size**0.5
            and abs(self.least - other.least) <= slack
            and abs(self.largest - other.largest) <= slack
        )


def first_unaccounted(path: Path, feed: Feed, found: Sequence[Print]) -> str | None:
    """The first node of a model file from which on no result is among those found.

    Args:
        path: the ONNX file.
        feed: inputs.
        found: prints of what the compiled model computed on them.

    Returns:
        the node as text; None if each is accounted for.

    Raises:
        Exception: ONNX Runtime can't give the results between; it raises errors of its own.
    """
    model = onnx.load(str(path), load_external_data=False)
    nodes = _nodes_on_the_way(model.graph)
    prints = _prints(model, path, feed, [node.output[0] for node in nodes])
    accounted: set[str] = set()
    for node in reversed(nodes):
        own = prints.get(node.output[0])
        is_found = own is not None and any(own.is_like(other) for other in found)
        if is_found or accounted.intersection(node.output):
            accounted.update(node.output)
            accounted.update(node.input)
    for node in nodes:
        if node.output[0] in prints and not accounted.intersection(node.output):
            return f"{node.name or node.output[0]!r} ({node.op_type})"
    return None


def _nodes_on_the_way(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Nodes that depend on the inputs, in order."""
    weights = {tensor.name for tensor in graph.initializer}
    reached = {value.name for value in graph.input if value.name not in weights}
    nodes = []
    for node in graph.node:
        if reached.intersection(node.input):
            reached.update(node.output)
            nodes.append(node)
    return [node for node in nodes if node.output[0]]


def _prints(
    model: onnx.ModelProto, path: Path, feed: Feed, names: Sequence[str]
) -> Mapping[str, Print]:
    """Prints of the results of those names, as far as they have any."""
    declared = {value.name for value in model.graph.output}
    model.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in names if name not in declared
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry(_FOLDER_OPTION, str(path.absolute().parent))
    session: Any = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    prints: dict[str, Print] = {}
    for start in range(0, len(names), _RESULTS_PER_RUN):
        part = list(names[start : start + _RESULTS_PER_RUN])
        for name, result in zip(part, session.run(part, feed), strict=True):
            one = Print.of(np.asarray(result)) if isinstance(result, np.ndarray) else None
            if one is not None:
                prints[name] = one
    return prints
