"""A plan put into the model's graph: kernels scheduled, weights packed ahead.

    call_tir(kernel, x, w)   →   call_tir(scheduled kernel, x, packed w)     packed w: a constant

A schedule may want a weight in another layout. The kernel then takes the packed weight, which is
computed here: nothing is packed when the model runs. Calls of one kernel share one program. Kernels
that want one weight packed alike, those of two sets of input shapes say, share the constant: the
artifact holds it once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import tvm
from tvm import ir, relax, tirx
from tvm.relax.expr_functor import PyExprMutator, mutator
from tvm.s_tir.transform import RemoveWeightLayoutRewriteBlock

from tunebank import _tvm
from tunebank.kernel import Kernel
from tunebank.measure.packing import Packing, WinogradPacking, packings
from tunebank.model import (
    Model,
    called_name,
    is_kernel_call,
    joined,
    kernel_calls,
    main_functions,
)
from tunebank.schedule.reference import reference_module
from tunebank.search import Plan
from tunebank.search.sharing import PLAIN, packing_text


@dataclass(frozen=True)
class _Placed:
    """A kernel's scheduled program, what it is called, and how its weights are packed."""

    symbol: str
    func: tirx.PrimFunc
    packings: tuple[Packing, ...] = ()


class _Weights:
    """The packed weights of all kernels; each is packed once in each way."""

    def __init__(self) -> None:
        self._packed: dict[tuple[Any, str], Any] = {}

    def packed(self, weight: Any, packing: Packing) -> Any:
        """The packed constant; the weight itself if the packing changes nothing.

        Raises:
            AttributeError: the weight is no constant.
            ValueError: the packing is no copy.
        """
        array, how = weight.value, packing_text(packing)
        if how == PLAIN:
            return weight
        if (weight, how) not in self._packed:
            packed = packing.apply(array.numpy())
            self._packed[weight, how] = relax.const(tvm.runtime.tensor(packed))
        return self._packed[weight, how]


def symbol_of(kernel: Kernel) -> str:
    """What a kernel's scheduled program is called in the artifact; see `kernel_key_of`."""
    return f"{kernel.name}_{kernel.key}"


def kernel_key_of(symbol: str) -> str:
    """The key of the kernel that a scheduled program is of; of another program nonsense."""
    return symbol.rpartition("_")[2]


def placed_module(model: Model, plan: Plan) -> ir.IRModule:
    """The model's graph, joined as the plan says, with every kernel under its schedule."""
    model = joined(model, plan.joins)
    calls = _calls_by_kernel(model)
    weights = _Weights()
    placed = {
        key: _place(choice.kernel, choice.scheduled.module, calls[key], weights)
        for key, choice in plan.choices.items()
        if choice.scheduled is not None and key in calls
    }
    rewriter = _Rewriter(model, placed, weights)
    functions = main_functions(model.module)
    for var in functions:
        rewriter.builder_.update_func(var, rewriter.visit_expr(model.module[var]))
    names = [str(var.name_hint) for var in functions]
    return relax.transform.DeadCodeElimination(names)(rewriter.builder_.get())


def _place(
    kernel: Kernel, scheduled: ir.IRModule, calls: list[ir.Call], weights: _Weights
) -> _Placed:
    """The program to put in a kernel's place, without the packing where that can be done."""
    # A private function of a module has no symbol of its own.
    func = scheduled["main"].without_attr("global_symbol")
    try:
        placed = _Placed(symbol_of(kernel), func, tuple(packings(scheduled)))
        for call in calls:
            for packing in placed.packings:
                weights.packed(call.args[1].fields[packing.position], packing)
    except (AttributeError, KeyError, IndexError, ValueError):
        if any(isinstance(packing, WinogradPacking) for packing in packings(scheduled)):
            # Its program takes no plain weight.
            func = reference_module(kernel)["main"].without_attr("global_symbol")
        # A weight that the model computes, or a packing that is no copy: the kernel itself
        # packs at each call, as its schedule says.
        return _Placed(symbol_of(kernel), func)
    if not placed.packings:
        return placed
    stripped = RemoveWeightLayoutRewriteBlock(skip_tensor_rewrite=True)(scheduled)["main"]
    return replace(placed, func=_tvm.with_own_type(stripped.without_attr("global_symbol")))


def _calls_by_kernel(model: Model) -> dict[str, list[ir.Call]]:
    calls: dict[str, list[ir.Call]] = {}
    for var in main_functions(model.module):
        for call in kernel_calls(model.module[var]):
            key = model.kernel_of.get(called_name(call))
            if key is not None:
                calls.setdefault(key, []).append(call)
    return calls


@mutator
class _Rewriter(PyExprMutator):  # type: ignore[misc]
    """Sends calls to the placed programs, with packed weights."""

    def __init__(self, model: Model, placed: dict[str, _Placed], weights: _Weights) -> None:
        super().__init__(model.module)
        self._kernel_of = model.kernel_of
        self._placed = placed
        self._weights = weights
        self._vars: dict[str, ir.GlobalVar] = {}

    def visit_call_(self, call: ir.Call) -> Any:
        call = self.visit_expr_post_order(call)
        if not is_kernel_call(call):
            return call
        key = self._kernel_of.get(called_name(call), "")
        target = self._placed.get(key)
        if target is None:
            return call
        if key not in self._vars:
            # A variable of its own: packed weights change the function's type.
            self._vars[key] = self.builder_.add_func(target.func, target.symbol)
        arguments = list(call.args[1].fields)
        for packing in target.packings:
            weight = arguments[packing.position]
            arguments[packing.position] = self._weights.packed(weight, packing)
        operands = [self._vars[key], relax.Tuple(arguments), *call.args[2:]]
        return ir.Call(call.op, operands, call.attrs, call.ty_args, call.span)
