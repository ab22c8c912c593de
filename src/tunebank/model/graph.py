"""From a canonical ONNX graph to fused tensor programs.

ONNX ─from_onnx─▶ Relax ─layout─▶ NHWC/HWIO ─legalise, fold, fuse─▶ call_tir of kernels
"""

from __future__ import annotations

import tvm
from tvm import ir, relax
from tvm.relax.frontend.onnx import from_onnx

from tunebank import _tvm
from tunebank.errors import ModelError
from tunebank.model.fold import fold_constants
from tunebank.model.layout import in_nhwc
from tunebank.model.onnx_file import OnnxModel


def fused_module(model: OnnxModel, target: tvm.target.Target) -> tuple[ir.IRModule, list[str]]:
    """The model as calls of fused tensor programs, weights embedded as constants.

    Returns:
        the module, whose function `main` calls tensor programs alone, and warnings: what
        could not be done for this model.

    Raises:
        ModelError: TVM lacks an operator of the model, or can't import it.
    """
    warnings: list[str] = []
    module = _imported(model)
    with target:
        module = relax.transform.DecomposeOpsForInference()(module)
        module = relax.transform.CanonicalizeBindings()(module)
        module = _in_nhwc(module, warnings)
        module = relax.transform.LegalizeOps()(module)
        module = fold_constants(module, target)
        passes = (
            relax.transform.AnnotateTIROpPattern(),
            relax.transform.FuseOps(),
            relax.transform.FuseTIR(),
            # Weights may take another layout when they are constants: marks them.
            relax.transform.AttachAttrLayoutFreeBuffers(),
            relax.transform.DeadCodeElimination(["main"]),
        )
        return tvm.transform.Sequential(passes)(module), warnings


def _imported(model: OnnxModel) -> ir.IRModule:
    shapes = {spec.name: list(spec.shape) for spec in model.inputs}
    _tvm.import_clips_whole()
    try:
        return from_onnx(model.proto, shape_dict=shapes, keep_params_in_input=False)
    except tvm.error.OpNotImplemented as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{model.path}: TVM lacks an operator of the model: {reason}") from error
    except Exception as error:  # the importer raises what its converters happen to raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"{model.path}: TVM can't import the model: {lines[-1][:300]}") from error


def _in_nhwc(module: ir.IRModule, warnings: list[str]) -> ir.IRModule:
    """Convolutions in NHWC with HWIO weights, which schedule to about twice the speed."""
    try:
        return in_nhwc(module)
    except (RuntimeError, ValueError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        warnings.append(f"convolutions stay in NCHW, which is slower: {lines[-1][:200]}")
        return module
