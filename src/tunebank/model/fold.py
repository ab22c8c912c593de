"""Constant folding of many calls at once.

    w1 = call_tir(transpose, (constant,))     →     w1 = constant

TVM's own pass builds one LLVM module for each call that it folds; here all programs of a pass
over the graph are built as one module, each distinct one once.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import ir, relax, tirx
from tvm.relax.expr_functor import PyExprMutator, mutator

_CALL_TIR = "relax.call_tir"


def fold_constants(module: ir.IRModule, target: tvm.target.Target) -> ir.IRModule:
    """Replaces every call of a tensor program on constants alone by its result."""
    while calls := _foldable(module):
        module = _replace(module, _evaluate(module, calls, target))
        module = relax.transform.CanonicalizeBindings()(module)
    return relax.transform.DeadCodeElimination(["main"])(module)


def _foldable(module: ir.IRModule) -> list[tuple[Any, Any]]:
    """Variables bound to calls on constants, with the calls."""
    constants: set[Any] = set()
    found = []
    for block in module["main"].body.blocks:
        for binding in block.bindings:
            if not isinstance(binding, relax.VarBinding):
                continue
            value = binding.value
            if isinstance(value, ir.GenericConst):
                constants.add(binding.var)
            elif _is_constant_call(value, constants):
                found.append((binding.var, value))
    return found


def _is_constant_call(value: Any, constants: set[Any]) -> bool:
    if not isinstance(value, ir.Call) or getattr(value.op, "name", "") != _CALL_TIR:
        return False
    # Symbolic arguments, and programs with several results, stay for TVM.
    if len(value.args) != 2 or len(value.ty_args) != 1:
        return False
    if not isinstance(value.ty_args[0], relax.TensorType):
        return False
    arguments = value.args[1]
    fields = arguments.fields if isinstance(arguments, relax.Tuple) else []
    return len(fields) > 0 and all(
        isinstance(field, ir.GenericConst) or field in constants for field in fields
    )


def _evaluate(
    module: ir.IRModule, calls: list[tuple[Any, Any]], target: tvm.target.Target
) -> dict[Any, Any]:
    functions: dict[str, tirx.PrimFunc] = {}
    for _, call in calls:
        name = call.args[0].name_hint
        functions[name] = module[call.args[0]].with_attr("global_symbol", name)
    program = tirx.build(ir.IRModule(functions), target=target)
    bound = _bound_constants(module)
    results = {}
    for var, call in calls:
        arguments = [bound.get(field, field).value for field in call.args[1].fields]
        result = call.ty_args[0]
        shape = [int(extent) for extent in result.shape]
        output = tvm.runtime.empty(shape, str(result.dtype))
        program[call.args[0].name_hint](*arguments, output)
        results[var] = relax.const(output)
    return results


def _bound_constants(module: ir.IRModule) -> dict[Any, Any]:
    return {
        binding.var: binding.value
        for block in module["main"].body.blocks
        for binding in block.bindings
        if isinstance(binding, relax.VarBinding) and isinstance(binding.value, ir.GenericConst)
    }


@mutator
class _Replacer(PyExprMutator):  # type: ignore[misc]
    """Puts results in the place of the calls that gave them."""

    def __init__(self, module: ir.IRModule, results: dict[Any, Any]) -> None:
        super().__init__(module)
        self._results = results

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        if binding.var not in self._results:
            super().visit_var_binding_(binding)
        elif isinstance(binding.var, relax.DataflowVar):
            self.set_var_remap(binding.var, self.builder_.emit(self._results[binding.var]))
        else:
            output = self.builder_.emit_output(self._results[binding.var])
            self.set_var_remap(binding.var, output)


def _replace(module: ir.IRModule, results: dict[Any, Any]) -> ir.IRModule:
    replacer = _Replacer(module, results)
    main = module.get_global_var("main")
    replacer.builder_.update_func(main, replacer.visit_expr(module["main"]))
    return replacer.builder_.get()
