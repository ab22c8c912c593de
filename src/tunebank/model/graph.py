"""From a canonical ONNX graph to fused tensor programs.

ONNX ─from_onnx─▶ Relax ─fold weights─▶ ─layout─▶ NHWC/HWIO ─legalise, fold, fuse─▶ call_tir
"""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import tvm
from onnx import helper
from tvm import ir, relax
from tvm.relax.frontend.onnx import from_onnx

from tunebank import _tvm
from tunebank.errors import ModelError
from tunebank.model.canonical import CanonicalGraph
from tunebank.model.elementary import with_polynomials
from tunebank.model.fold import fold_constants, fold_weights
from tunebank.model.layout import in_nhwc
from tunebank.model.narrow import with_products_of_bytes
from tunebank.model.onnx_file import external_array, is_external
from tunebank.model.packable import without_looked_up
from tunebank.model.strategy import Strategy
from tunebank.model.wide import with_wide_apart

Note = Callable[[str, str], None]
_Pass = tuple[str, Callable[[ir.IRModule], ir.IRModule]]


@dataclass(frozen=True)
class FusedGraph:
    """A model as calls of fused tensor programs.

    Attributes:
        module: the function `main` calls tensor programs alone; weights are constants.
        convolutions: by layout, how many convolutions there are.
    """

    module: ir.IRModule
    convolutions: dict[str, int]


def fused_graph(
    path: Path,
    graph: CanonicalGraph,
    target: tvm.target.Target,
    strategy: Strategy,
    note: Note,
    *,
    multiplies_bytes: bool = False,
) -> FusedGraph:
    """The model as calls of fused tensor programs, weights embedded as constants.

    Args:
        path: the model file, for messages.
        graph: the canonical graph.
        target: what programs are legalised for.
        strategy: what to do and what to leave out.
        note: called with each pass, or with the importer and a node, before it begins.
        multiplies_bytes: whether the target has an instruction for sums of products of bytes.

    Raises:
        ModelError: TVM lacks an operator of the model, or can't import it.
    """
    module = _imported(path, graph, note)
    with target:
        module = _through(module, _simplifying(strategy, multiplies_bytes), note)
        convolutions = _layouts(module)
        module = _through(module, _lowering(strategy, target), note)
    return FusedGraph(module, convolutions)


def _through(module: ir.IRModule, passes: Sequence[_Pass], note: Note) -> ir.IRModule:
    for name, run in passes:
        note(name, "")
        module = run(module)
    return module


def _simplifying(strategy: Strategy, multiplies_bytes: bool) -> list[_Pass]:
    """What is done to the model's operators."""
    transform = relax.transform
    return [
        *([("products of bytes", with_products_of_bytes)] if multiplies_bytes else []),
        ("folding of weights", fold_weights),
        ("DecomposeOpsForInference", transform.DecomposeOpsForInference()),
        ("CanonicalizeBindings", transform.CanonicalizeBindings()),
        *([("layout", in_nhwc)] if strategy.channels_last else []),
    ]


def _lowering(strategy: Strategy, target: tvm.target.Target) -> list[_Pass]:
    """From operators to fused tensor programs."""
    transform = relax.transform
    fusing: list[_Pass] = [
        ("AnnotateTIROpPattern", transform.AnnotateTIROpPattern()),
        ("wide programs apart", with_wide_apart),
        ("FuseOps", transform.FuseOps()),
        ("FuseTIR", transform.FuseTIR()),
    ]
    return [
        ("DispatchSampling", relax.backend.DispatchSampling()),
        ("DispatchSortScan", relax.backend.DispatchSortScan()),
        ("elementary functions", with_polynomials),
        ("LegalizeOps", transform.LegalizeOps()),
        ("folding of constants", partial(fold_constants, target=target)),
        *(fusing if strategy.fuse else []),
        # Weights may take another layout when they are constants: marks them.
        ("AttachAttrLayoutFreeBuffers", transform.AttachAttrLayoutFreeBuffers()),
        ("check of weights to pack", without_looked_up),
        ("DeadCodeElimination", transform.DeadCodeElimination(["main"])),
    ]


def _imported(path: Path, graph: CanonicalGraph, note: Note) -> ir.IRModule:
    """The graph in Relax. Large weights come as parameters, and are bound afterwards."""
    structure, weights = _weights_as_inputs(graph.proto)
    shapes = {
        value.name: [int(dim.dim_value) for dim in value.type.tensor_type.shape.dim]
        for value in structure.graph.input
    }
    at = ["", ""]

    def note_node(operator: str, name: str) -> None:
        at[:] = operator, name
        note("TVM's ONNX importer", f"{name} ({operator})")

    _tvm.repair_importer()
    try:
        # The importer prints what it fails at to standard output, which is for data.
        with _tvm.noting_nodes(note_node), contextlib.redirect_stdout(io.StringIO()):
            module = from_onnx(structure, shape_dict=shapes, keep_params_in_input=False)
    except tvm.error.OpNotImplemented as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{path}: TVM lacks an operator of the model: {reason}") from error
    except Exception as error:  # the importer raises what its converters happen to raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        where = f"node {at[1]!r} ({at[0]})" if at[0] else "the model"
        raise ModelError(f"{path}: TVM can't import {where}: {lines[-1][:300]}") from error
    arrays = [_constant(tensor, graph.folder) for tensor in weights]
    parameters = list(module["main"].params)[-len(arrays) :] if arrays else []
    bound = dict(zip(parameters, arrays, strict=True))
    return relax.transform.BindParams("main", bound)(module)


def _weights_as_inputs(
    proto: onnx.ModelProto,
) -> tuple[onnx.ModelProto, list[onnx.TensorProto]]:
    """The graph with its external weights as its last inputs, and those weights in that order."""
    structure = onnx.ModelProto()
    structure.CopyFrom(proto)
    weights = [tensor for tensor in structure.graph.initializer if is_external(tensor)]
    kept = [tensor for tensor in structure.graph.initializer if not is_external(tensor)]
    inputs = [
        helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        for tensor in weights
    ]
    del structure.graph.initializer[:]
    structure.graph.initializer.extend(kept)
    structure.graph.input.extend(inputs)
    return structure, weights


def _constant(tensor: onnx.TensorProto, folder: Path) -> tvm.runtime.Tensor:
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    array = external_array(tensor, folder).view(dtype).reshape(tuple(tensor.dims))
    return _tvm.tensor_of(array)


def _layouts(module: ir.IRModule) -> dict[str, int]:
    """How many convolutions each layout has."""
    found: Counter[str] = Counter()

    def visit(expr: Any) -> None:
        if isinstance(expr, ir.Call) and "conv" in getattr(expr.op, "name", ""):
            found[str(expr.attrs.data_layout)] += 1

    relax.analysis.post_order_visit(module["main"], visit)
    return dict(found)
