"""Folding of small constants, as shapes, axes and loop counters are.

ONNX Runtime did this for the file. What a rewrite adds, the counter of an unrolled loop or the
shape computation in an operator's function body, is folded here:

    Shape(x), Gather(·, 0), Mul(·, 2)     →     the number

All that can be folded in one pass over the graph is run by ONNX Runtime as one model.
"""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import onnx
import onnxruntime
from onnx import helper

from tunebank.model.rewrite.graph import (
    DOMAIN,
    SMALL_ELEMENTS,
    Graph,
    attributes_of,
    plain_domain,
    subgraphs,
)

_UNFOLDABLE = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial"}
    | {"Bernoulli", "Dropout", "SequenceEmpty", "SequenceConstruct", "SplitToSequence", "Optional"}
    # A weight that was quantised stays so: TVM can then compute in integers.
    | {"DequantizeLinear"}
)


def fold_small(graph: Graph) -> bool:
    """Replaces nodes that give small constants by these; says whether there were any."""
    nodes = _without_known(graph)
    folded, kept = [], []
    known: set[str] = set()
    for node in nodes:
        if _is_foldable(graph, node, known):
            folded.append(node)
            known.update(name for name in node.output if name)
        else:
            kept.append(node)
    values = _evaluated(graph, folded) if folded else {}
    for name, value in values.items():
        graph.add_constant(value, name)
    left = kept if values else nodes
    changed = len(left) < len(graph.proto.node)
    if changed:
        graph.replace_nodes(left)
    return changed


def _without_known(graph: Graph) -> list[onnx.NodeProto]:
    """The nodes without those whose value stands there already: it becomes a constant."""
    nodes = []
    for node in graph.proto.node:
        array = _at_once(graph, node)
        if array is None:
            nodes.append(node)
        else:
            graph.add_constant(array, node.output[0])
    return nodes


def _at_once(graph: Graph, node: onnx.NodeProto) -> np.ndarray | None:
    """The value of a node that needs no evaluation: a constant, or the shape of a known value."""
    if plain_domain(node) != DOMAIN or len(node.output) != 1:
        return None
    if node.op_type == "Constant":
        return _constant_value(node)
    if node.op_type not in ("Shape", "Size"):
        return None
    shape = graph.shape(node.input[0])
    if shape is None:
        return None
    if node.op_type == "Size":
        return np.asarray(np.prod(shape, dtype=np.int64))
    attributes = attributes_of(node)
    start, end = attributes.get("start", 0), attributes.get("end")
    return np.asarray(shape[start:end], dtype=np.int64)


def _constant_value(node: onnx.NodeProto) -> np.ndarray | None:
    (attribute,) = node.attribute
    value = helper.get_attribute_value(attribute)
    if attribute.name == "value":
        return np.asarray(onnx.numpy_helper.to_array(value))
    if attribute.name in ("value_float", "value_floats"):
        return np.asarray(value, dtype=np.float32)
    if attribute.name in ("value_int", "value_ints"):
        return np.asarray(value, dtype=np.int64)
    return None


def _is_foldable(graph: Graph, node: onnx.NodeProto, known: set[str]) -> bool:
    if plain_domain(node) != DOMAIN or node.op_type in _UNFOLDABLE:
        return False
    if any(True for _ in subgraphs(node)):
        return False
    if not all(name in known or graph.constant(name) is not None for name in node.input if name):
        return False
    return all(_is_small(graph, name) for name in node.output if name)


def _is_small(graph: Graph, name: str) -> bool:
    shape = graph.shape(name)
    # Unknown: the operator's result depends on values, as NonZero's does, and these are small.
    return shape is None or math.prod(shape) <= SMALL_ELEMENTS


def _evaluated(graph: Graph, nodes: list[onnx.NodeProto]) -> dict[str, np.ndarray]:
    """What the nodes give to other nodes; empty if ONNX Runtime can't run them."""
    own = {name for node in nodes for name in node.output if name}
    inner = Counter(name for node in nodes for name in node.input if name)
    taken = inner.keys() - own
    wanted = sorted(name for name in own if graph.uses(name) > inner[name])
    if not wanted:
        return {}
    model = onnx.ModelProto(ir_version=graph.model.ir_version)
    model.opset_import.extend(graph.model.opset_import)
    model.graph.name = "folded"
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(tensor for name in taken if (tensor := graph.initializer(name)))
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), _quiet(), providers=["CPUExecutionProvider"]
        )
        results = session.run(wanted, {})
    except Exception:  # ONNX Runtime's exceptions share no base class
        return {}
    if not all(isinstance(value, np.ndarray) for value in results):
        return {}
    return dict(zip(wanted, results, strict=True))


def _quiet() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options
