"""From a canonical ONNX graph to fused tensor programs.

ONNX ─from_onnx─▶ Relax ─layout─▶ NHWC/HWIO ─legalise, fold, fuse─▶ call_tir of kernels
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import ir, relax
from tvm.relax.expr_functor import PyExprMutator, mutator
from tvm.relax.frontend.onnx import from_onnx

from tunebank import _tvm
from tunebank.errors import ModelError
from tunebank.model.fold import fold_constants
from tunebank.model.onnx_file import OnnxModel

_LAYOUTS = {
    "relax.nn.conv2d": ["NHWC", "HWIO"],
    "relax.nn.conv2d_transpose": ["NHWC", "HWIO"],
}


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
        module = relax.transform.ConvertLayout(_LAYOUTS)(module)
        return _sink_transposes(relax.transform.Normalize()(module))
    except (RuntimeError, ValueError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        warnings.append(f"convolutions stay in NCHW, which is slower: {lines[-1][:200]}")
        return module


@mutator
class _TransposeSinker(PyExprMutator):  # type: ignore[misc]
    """Takes the transposes around a clip away.

        permute_dims(clip(permute_dims(x, p)), q)   →   clip(x)     where q undoes p

    `ConvertLayout` does not pass through a clip, so that each ReLU6 would stand between two
    transposes: a third of MobileNetV2's time.
    """

    def visit_call_(self, call: ir.Call) -> Any:
        call = self.visit_expr_post_order(call)
        clip = self._operand(call, "relax.permute_dims")
        inner = self._operand(clip, "relax.clip")
        if inner is None or not self._is_call(inner, "relax.permute_dims"):
            return call
        outer_axes, inner_axes = _axes(call), _axes(inner)
        if [inner_axes[axis] for axis in outer_axes] != list(range(len(outer_axes))):
            return call
        return relax.op.clip(inner.args[0], *clip.args[1:])

    def _operand(self, call: Any, name: str) -> Any:
        """What defines the first argument of a call of that operator; else None."""
        if not self._is_call(call, name) or not isinstance(call.args[0], relax.Var):
            return None
        return self.lookup_binding(call.args[0])

    @staticmethod
    def _is_call(expr: Any, name: str) -> bool:
        return isinstance(expr, ir.Call) and getattr(expr.op, "name", "") == name


def _axes(permute: ir.Call) -> list[int]:
    axes = permute.attrs.axes
    rank = len(permute.ty.shape)
    return [int(axis) % rank for axis in axes] if axes is not None else list(range(rank))[::-1]


def _sink_transposes(module: ir.IRModule) -> ir.IRModule:
    sinker = _TransposeSinker(module)
    main = module.get_global_var("main")
    sinker.builder_.update_func(main, sinker.visit_expr(module["main"]))
    return relax.transform.DeadCodeElimination(["main"])(sinker.builder_.get())
