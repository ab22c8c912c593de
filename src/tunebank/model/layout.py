"""Convolutions in NHWC with HWIO weights, which schedule to about twice the speed.

Those of volumes are in NDHWC with DHWIO: a C3D takes a quarter of the time.

Every tensor of three or more dimensions may have two forms, the model's own and *channels last*:

    x: (N, C, H, W)        x': (N, H, W, C)        x' = permute_dims(x, (0, 2, 3, 1))

The graph is walked once, in order. A convolution asks for the channels-last form of its input and
gives its result in that form alone. An operator that has a rule (`layout_rules.py`) follows its
operands; any other asks for the model's own form. A form that is asked for and not there yet is
made by one transposition, and kept: so layout is carried as far as the rules go, and where they
end stand two transpositions, never an error.
"""

from __future__ import annotations

from typing import Any

from tvm import ir, relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from tunebank import _tvm
from tunebank.model.fold import constant_of
from tunebank.model.layout_rules import Result, channels_first, channels_last, rule_of


def in_nhwc(module: ir.IRModule) -> ir.IRModule:
    """The module with its convolutions in NHWC, those of volumes in NDHWC.

    A function with control flow is left as it is: a form that is made in one branch is not
    there in the other.
    """
    if _branches(module["main"]):
        return module
    rewriter = _ChannelsLast(module)
    main = module.get_global_var("main")
    rewriter.builder_.update_func(main, rewriter.visit_expr(module["main"]))
    module = relax.transform.CanonicalizeBindings()(rewriter.builder_.get())
    return relax.transform.DeadCodeElimination(["main"])(module)


def _branches(func: relax.Function) -> bool:
    found = False

    def visit(expr: Any) -> None:
        nonlocal found
        found = found or isinstance(expr, relax.If)

    relax.analysis.post_order_visit(func, visit)
    return found


def _turned(value: Any, order: tuple[int, ...]) -> Any:
    """A value with its axes in another order; a reshape, where nothing moves in memory."""
    shape = [int(extent) for extent in value.ty.shape]
    long = [axis for axis in order if shape[axis] > 1]
    if long == sorted(long):
        return relax.op.reshape(value, [shape[axis] for axis in order])
    return relax.op.permute_dims(value, list(order))


@mutator
class _ChannelsLast(PyExprMutator):  # type: ignore[misc]
    """The walk: which forms each variable has, and the operators rewritten."""

    def __init__(self, module: ir.IRModule) -> None:
        super().__init__(module)
        self._first: dict[Any, Any] = {}
        self._last: dict[Any, Any] = {}
        self._native: set[Any] = set()
        self._tuples: dict[Any, Any] = {}
        self._bindings: dict[Any, Any] = {}

    # -- forms, for the rules

    def is_last(self, expr: Any) -> bool:
        """Whether channels last is the form that the value was computed in."""
        return expr in self._native

    def first(self, expr: Any) -> Any:
        """The value in the model's own form."""
        if not isinstance(expr, relax.Var):
            return expr
        if expr in self._tuples:
            parts = [self.builder_.emit(self._tuples[expr][i]) for i in range(len(expr.ty.fields))]
            orders = [channels_first(len(part.ty.shape)) for part in parts]
            return relax.Tuple(
                [self.builder_.emit(_turned(*pair)) for pair in zip(parts, orders, strict=True)]
            )
        if expr not in self._first:
            if expr not in self._last:
                return self.get_var_remap(expr) or expr
            order = channels_first(len(expr.ty.shape))
            self._first[expr] = self.builder_.emit(_turned(self._last[expr], order))
        return self._first[expr]

    def last(self, expr: Any) -> Any:
        """The value channels last."""
        if expr in self._last:
            return self._last[expr]
        order = channels_last(len(expr.ty.shape))
        array = constant_of(expr, self.lookup_binding)
        if array is not None:
            made = relax.const(_tvm.tensor_of(array.transpose(order)))
        else:
            made = self.builder_.emit(_turned(self.first(expr), order))
        self._last[expr] = made
        return made

    def constant(self, expr: Any) -> Any:
        """The value as an array if it is constant, else None."""
        return constant_of(expr, self.lookup_binding)

    def binding(self, expr: Any) -> Any:
        """The model's own expression that a variable stands for; None if it stands for none."""
        return self._bindings.get(expr)

    def emit(self, expr: Any) -> Any:
        """A variable bound to an expression."""
        return self.builder_.emit(expr)

    # -- the walk

    def visit_dataflow_var_(self, var: relax.DataflowVar) -> Any:
        return self.first(var)

    def visit_var_(self, var: relax.Var) -> Any:
        return self.first(var)

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        var, value = binding.var, binding.value
        self._bindings[var] = value
        result = self._rewritten(value)
        if result is None:
            self._keep_first(var, self.visit_expr(value))
            return
        if isinstance(var.ty, ir.TupleType):
            self._tuples[var] = self.builder_.emit(result.expr)
        elif result.is_last:
            self._last[var] = self.builder_.emit(result.expr)
            self._native.add(var)
        else:
            self._keep_first(var, result.expr)
            return
        if not isinstance(var, relax.DataflowVar):
            self._keep_first(var, self.first(var))

    def _keep_first(self, var: relax.Var, expr: Any) -> None:
        if isinstance(var, relax.DataflowVar):
            made = self.builder_.emit(expr, str(var.name))
        else:
            made = self.builder_.emit_output(expr, str(var.name))
            self.set_var_remap(var, made)
        self._first[var] = made

    def _rewritten(self, value: Any) -> Result | None:
        if isinstance(value, relax.TupleGetItem) and value.tuple_value in self._tuples:
            return Result(relax.TupleGetItem(self._tuples[value.tuple_value], value.index))
        if isinstance(value, relax.Var) and self.is_last(value):
            return Result(self._last[value])
        if not isinstance(value, ir.Call):
            return None
        rule = rule_of(value, self)
        return rule(value, self) if rule is not None else None
