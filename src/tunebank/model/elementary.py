"""Elementary functions as polynomials, which vector units compute; a call of libm they can't.

    exp, tanh, erf          TVM's `fast_exp`, `fast_tanh`, `fast_erf` (Cephes; Eigen's rationals)
    sigmoid, silu           1 / (1 + exp(-x)), and times x
    gelu                    x · (1 + erf(x/√2)) / 2
    gelu_tanh               x · (1 + tanh(√(2/π)·(x + 0.044715·x³))) / 2
    softmax                 with `fast_exp`

One vectorised element takes 0.25 to 0.3 ns where a call takes 2 to 5.5 (AVX-512). Relative errors
against float64 on [-12, 12]: exp and sigmoid below 3e-7, tanh and erf below 4e-7, some 5 units in
the last place; gelu's is below 5e-7 of its operand. NaN is handed on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tvm import ir, te, tirx, topi
from tvm.relax.expr_functor import PyExprMutator, mutator

Function = Callable[[Any], Any]


def with_polynomials(module: ir.IRModule) -> ir.IRModule:
    """The module with elementary functions of float32 tensors as polynomials."""
    rewriter = _Rewriter(module)
    main = module.get_global_var("main")
    rewriter.builder_.update_func(main, rewriter.visit_expr(module["main"]))
    return rewriter.builder_.get()


@mutator
class _Rewriter(PyExprMutator):  # type: ignore[misc]
    """Puts tensor programs in the place of operators."""

    def visit_call_(self, call: ir.Call) -> Any:
        call = self.visit_expr_post_order(call)
        name = str(getattr(call.op, "name", ""))
        if str(getattr(call.ty, "dtype", "")) != "float32":
            return call
        if name == "relax.nn.softmax":
            return self.builder_.call_te(topi.nn.fast_softmax, call.args[0], int(call.attrs.axis))
        if name not in _FUNCTIONS:
            return call
        hint = name.rpartition(".")[2]
        return self.builder_.call_te(_FUNCTIONS[name], call.args[0], primfunc_name_hint=hint)


def _constant(value: float) -> Any:
    return tirx.const(value, "float32")


def _erf(x: te.Tensor) -> te.Tensor:
    approximated = topi.fast_erf(x)
    return te.compute(
        x.shape,
        # The rational's bounds take NaN for a number.
        lambda *i: tirx.Select(tirx.isnan(x(*i)), x(*i), approximated(*i)),
        name="erf",
        tag=topi.tag.ELEMWISE,
    )


def _sigmoid(x: te.Tensor) -> te.Tensor:
    shrinking = topi.fast_exp(topi.negative(x))
    return te.compute(
        x.shape,
        lambda *i: _constant(1.0) / (_constant(1.0) + shrinking(*i)),
        name="sigmoid",
        tag=topi.tag.ELEMWISE,
    )


def _silu(x: te.Tensor) -> te.Tensor:
    return topi.multiply(x, _sigmoid(x))


def _gelu(x: te.Tensor) -> te.Tensor:
    scaled = topi.multiply(x, _constant(math.sqrt(0.5)))
    return _gated(x, _erf(scaled))


def _gelu_tanh(x: te.Tensor) -> te.Tensor:
    cubic = te.compute(
        x.shape,
        lambda *i: (
            _constant(math.sqrt(2 / math.pi))
            * (x(*i) + _constant(0.044715) * x(*i) * x(*i) * x(*i))
        ),
        name="cubic",
        tag=topi.tag.ELEMWISE,
    )
    return _gated(x, topi.fast_tanh(cubic))


def _gated(x: te.Tensor, gate: te.Tensor) -> te.Tensor:
    """X · (1 + gate) / 2."""
    return te.compute(
        x.shape,
        lambda *i: _constant(0.5) * x(*i) * (_constant(1.0) + gate(*i)),
        name="gated",
        tag=topi.tag.ELEMWISE,
    )


_FUNCTIONS: dict[str, Function] = {
    "relax.exp": topi.fast_exp,
    "relax.tanh": topi.fast_tanh,
    "relax.erf": _erf,
    "relax.sigmoid": _sigmoid,
    "relax.nn.silu": _silu,
    "relax.nn.gelu": _gelu,
    "relax.nn.gelu_tanh": _gelu_tanh,
}
