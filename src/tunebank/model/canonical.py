"""The canonical graph: equal mathematics written in one way.

ONNX Runtime's basic graph optimiser does what it does well: constants folded, batch norm folded
into convolutions, inference no-ops (dropout, identity) gone. What it leaves and TVM takes badly
is rewritten afterwards (`rewrite/`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx
import onnxruntime

from tunebank.errors import ModelError
from tunebank.model.onnx_file import INLINE_BYTES, fix_shapes
from tunebank.model.rewrite import rewrite, unsupported
from tunebank.model.shapes import ShapeSet


@dataclass(frozen=True)
class CanonicalGraph:
    """A graph with all shapes known; large weights are external.

    Attributes:
        proto: the graph.
        folder: where its external data lies.
    """

    proto: onnx.ModelProto
    folder: Path


def canonicalise(
    path: Path,
    proto: onnx.ModelProto,
    shapes: ShapeSet,
    *,
    weights: Path,
    folder: Path,
    optimise: bool,
    multiplies_bytes: bool = False,
) -> CanonicalGraph:
    """The canonical graph for one set of shapes.

    Args:
        path: the model file, for messages.
        proto: its structure; not changed.
        shapes: shapes of the inputs.
        weights: folder where its external data lies.
        folder: where the canonical graph's will.
        optimise: whether ONNX Runtime's optimisations are used; without them it folds nothing.
        multiplies_bytes: whether the CPU has an instruction for sums of products of bytes.

    Raises:
        ModelError: ONNX Runtime refuses the model.
    """
    fixed = onnx.ModelProto()
    fixed.CopyFrom(proto)
    fix_shapes(fixed, shapes)
    canonical = _optimised(path, fixed, weights, folder, optimise)
    return CanonicalGraph(_rewritten(path, canonical, multiplies_bytes), folder)


def first_nodes(graph: CanonicalGraph, count: int) -> CanonicalGraph:
    """The graph up to one of its nodes, whose results are then the outputs."""
    proto = onnx.ModelProto()
    proto.CopyFrom(graph.proto)
    del proto.graph.node[count:]
    del proto.graph.output[:]
    names = [name for name in proto.graph.node[-1].output if name]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return CanonicalGraph(proto, graph.folder)


def _rewritten(path: Path, proto: onnx.ModelProto, multiplies_bytes: bool) -> onnx.ModelProto:
    """The graph in terms of operators that TVM has.

    Raises:
        ModelError: it can't be put into them.
    """
    try:
        proto = rewrite(proto, multiplies_bytes=multiplies_bytes)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    lacking = unsupported(proto)
    if lacking:
        raise ModelError(f"{path}: TVM lacks an operator of the model: {', '.join(lacking)}")
    return proto


def _optimised(
    path: Path, proto: onnx.ModelProto, weights: Path, folder: Path, optimise: bool
) -> onnx.ModelProto:
    """The graph as ONNX Runtime writes it down."""
    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = (
        levels.ORT_ENABLE_BASIC if optimise else levels.ORT_DISABLE_ALL
    )
    options.log_severity_level = 4
    number = len(list(folder.glob("canonical*.onnx")))
    target = folder / f"canonical{number}.onnx"
    options.optimized_model_filepath = str(target)
    prefix = "session.optimized_model_external_initializers"
    options.add_session_config_entry(f"{prefix}_file_name", target.with_suffix(".bin").name)
    options.add_session_config_entry(f"{prefix}_min_size_in_bytes", str(INLINE_BYTES))
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(weights)
    )
    try:
        onnxruntime.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise ModelError(f"{path}: ONNX Runtime refuses the model: {_reason(error)}") from error
    return onnx.load(str(target), load_external_data=False)


def _reason(error: Exception) -> str:
    """ONNX Runtime's message without its prefix of codes."""
    text = " ".join(str(error).split())
    return text.split(" : ")[-1][:300]
