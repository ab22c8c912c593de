"""Constant folding: mere views with numpy, everything else by many calls at once.

    w1 = permute_dims(constant)              →     w1 = constant      before operators are lowered
    w1 = call_tir(program, (constant,))      →     w1 = constant      after it

TVM's own pass builds one LLVM module for each call that it folds. Most calls on weights only move
elements: numpy does those. What is left is built as one module per pass over the graph, each
distinct program once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm import ir, relax, tirx
from tvm.relax.expr_functor import PyExprMutator, mutator

from tunebank import _tvm
from tunebank.model.calls import is_kernel_call

_Array = npt.NDArray[Any]


def constant_of(expr: Any, lookup: Callable[[Any], Any]) -> _Array | None:
    """The array of a constant, or of a variable bound to one; None if it is something else.

    It is the constant's own memory: not to be written.
    """
    if isinstance(expr, relax.Var):
        expr = lookup(expr)
    return _tvm.array_view(expr.value) if isinstance(expr, ir.GenericConst) else None


def fold_weights(module: ir.IRModule) -> ir.IRModule:
    """Folds, with numpy, what is done to weights alone.

    permute_dims(w), reshape(w), ...     →     w'
    batch_norm(x, gamma, ...)            →     x * scale + shift
    """
    folder = _WeightFolder(module)
    main = module.get_global_var("main")
    folder.builder_.update_func(main, folder.visit_expr(module["main"]))
    return relax.transform.CanonicalizeBindings()(folder.builder_.get())


@mutator
class _WeightFolder(PyExprMutator):  # type: ignore[misc]
    """Folds views, each distinct one of a weight once, and batch norms."""

    def __init__(self, module: ir.IRModule) -> None:
        super().__init__(module)
        self._folded: dict[tuple[Any, ...], Any] = {}

    def visit_call_(self, call: ir.Call) -> Any:
        call = self.visit_expr_post_order(call)
        name = getattr(call.op, "name", "")
        if name == "relax.nn.batch_norm":
            return self._batch_norm(call)
        view = _VIEWS.get(name)
        if view is None or not _is_fixed(call.args[0]):
            return call
        source = call.args[0]
        if isinstance(source, relax.Var):
            source = self.lookup_binding(source)
        array = constant_of(source, self.lookup_binding)
        if array is None:
            return call
        key = (source, str(call.op.name), str(call.attrs), str(call.args[1:]), str(call.ty))
        if key not in self._folded:
            self._folded[key] = relax.const(_tvm.tensor_of(view(call, array)))
        return self._folded[key]

    def _batch_norm(self, call: Any) -> Any:
        """The norm as one scale and one shift per channel, if its statistics are constant."""
        data, *parameters = call.args
        found = [constant_of(one, self.lookup_binding) for one in parameters]
        arrays = [array for array in found if array is not None]
        if len(arrays) < len(parameters) or not _is_fixed(data):
            return call
        gamma, beta, mean, variance = (array.astype(np.float64) for array in arrays)
        scale = gamma / np.sqrt(variance + float(call.attrs.epsilon))
        shape = [1] * len(data.ty.shape)
        shape[int(call.attrs.axis)] = -1
        factor, term = (
            relax.const(_tvm.tensor_of(value.astype(arrays[0].dtype).reshape(shape)))
            for value in (scale, beta - mean * scale)
        )
        scaled = self.builder_.emit(relax.op.multiply(data, factor))
        normed = self.builder_.emit(relax.op.add(scaled, term))
        return relax.Tuple([normed, *parameters[2:]])


def _is_fixed(expr: Any) -> bool:
    """Whether the value is a tensor whose shape is known."""
    shape = getattr(getattr(expr, "ty", None), "shape", None)
    return shape is not None and all(isinstance(extent, tirx.IntImm) for extent in shape)


def _transposed(call: Any, array: _Array) -> _Array:
    axes = call.attrs.axes
    return array.transpose(None if axes is None else [int(axis) for axis in axes])


def _reshaped(call: Any, array: _Array) -> _Array:
    return array.reshape([int(extent) for extent in _result_type(call).shape])


def _result_type(call: Any) -> Any:
    return call.ty


_VIEWS: dict[str, Callable[[Any, _Array], _Array]] = {
    "relax.permute_dims": _transposed,
    "relax.reshape": _reshaped,
    "relax.expand_dims": _reshaped,
    "relax.squeeze": _reshaped,
}


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
    if not is_kernel_call(value):
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
