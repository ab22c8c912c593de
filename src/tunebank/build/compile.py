"""A plan made into machine code: the chosen schedules put into the model, weights packed.

    call_tir(kernel, x, w)   →   call_tir(scheduled kernel, x, packed w)     packed w: a constant
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import ir, relax, tirx

from tunebank.device import Device
from tunebank.model import Model, fold_constants
from tunebank.search import Plan


def scheduled_module(model: Model, plan: Plan) -> ir.IRModule:
    """The model's graph with every kernel under the plan's schedule."""
    functions: dict[Any, Any] = {}
    for var, func in model.module.functions_items():
        key = model.kernel_of.get(str(var.name_hint))
        choice = plan.choices.get(key) if key is not None else None
        if choice is not None and choice.scheduled is not None:
            func = _renamed(choice.scheduled.module["main"], func)
        functions[var] = func
    return ir.IRModule(functions, attrs=model.module.attrs)


def build(model: Model, plan: Plan, device: Device) -> relax.VMExecutable:
    """Compiles the model under the plan."""
    target = device.tvm_target()
    module = scheduled_module(model, plan)
    with target:
        # The packing of a weight becomes a program of its own, run here and now.
        module = relax.transform.SplitLayoutRewritePreproc()(module)
        module = fold_constants(module, target)
        return tvm.compile(module, target=target, relax_pipeline=_pipeline())


def _renamed(scheduled: tirx.PrimFunc, original: tirx.PrimFunc) -> tirx.PrimFunc:
    """The scheduled program under the original's name.

    The name may be absent: a private function of the module has none.
    """
    attributes = dict(original.attrs or {})
    func = scheduled.with_attr("tirx.is_scheduled", True)
    if "global_symbol" in attributes:
        return func.with_attr("global_symbol", attributes["global_symbol"])
    return func.without_attr("global_symbol")


def _pipeline() -> tvm.transform.Pass:
    """From calls of tensor programs to the virtual machine's instructions."""
    transform = relax.transform
    return tvm.transform.Sequential(
        [
            transform.RewriteDataflowReshape(),
            transform.ToNonDataflow(),
            transform.RemovePurityChecking(),
            transform.CallTIRRewrite(),
            transform.StaticPlanBlockMemory(),
            transform.LowerAllocTensor(),
            transform.KillAfterLastUse(),
            transform.LowerRuntimeBuiltin(),
            transform.ComputePrimValue(),
            transform.VMShapeLower(),
            transform.AttachGlobalSymbol(),
        ]
    )
