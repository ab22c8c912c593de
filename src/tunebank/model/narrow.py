"""Products of bytes: operators that were given widened bytes take the bytes themselves.

    conv2d(astype(x, int32), astype(w, int32))   →   conv2d(x, w), summed in int32

TVM's importer has no ConvInteger, and widens the factors of MatMulInteger: such layers come as
products of int32, and the bytes come back here. For CPUs that have an instruction for them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import ir, relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from tunebank import _tvm
from tunebank.model.fold import constant_of

_SUMS = "int32"
_X, _W = "uint8", "int8"
"""What the instruction multiplies: unsigned activations by signed weights."""


def with_products_of_bytes(module: ir.IRModule) -> ir.IRModule:
    """The module with convolutions and matrix products of bytes where they were widened."""
    narrower = _Narrower(module)
    main = module.get_global_var("main")
    narrower.builder_.update_func(main, narrower.visit_expr(module["main"]))
    module = relax.transform.CanonicalizeBindings()(narrower.builder_.get())
    return relax.transform.DeadCodeElimination(["main"])(module)


@mutator
class _Narrower(PyExprMutator):  # type: ignore[misc]
    def visit_call_(self, call: ir.Call) -> Any:
        call = self.visit_expr_post_order(call)
        name = getattr(call.op, "name", "")
        if name not in ("relax.nn.conv2d", "relax.matmul"):
            return call
        x, w = self._bytes(call.args[0], _X), self._bytes(call.args[1], _W)
        if x is None or w is None:
            return call
        if name == "relax.matmul":
            return relax.op.matmul(x, w, out_dtype=_SUMS)
        attrs = call.attrs
        return relax.op.nn.conv2d(
            x,
            w,
            strides=list(attrs.strides),
            padding=list(attrs.padding),
            dilation=list(attrs.dilation),
            groups=int(attrs.groups),
            data_layout=attrs.data_layout,
            kernel_layout=attrs.kernel_layout,
            out_layout=attrs.out_layout,
            out_dtype=_SUMS,
        )

    def _bytes(self, expr: Any, dtype: str) -> Any:
        """What was widened from this type to int32; None if it was something else."""
        value = self.lookup_binding(expr) if isinstance(expr, relax.Var) else expr
        array = constant_of(expr, self.lookup_binding)
        if array is not None and str(array.dtype) == _SUMS:
            narrow = array.astype(dtype)
            return relax.const(_tvm.tensor_of(narrow)) if np.array_equal(narrow, array) else None
        is_widened = getattr(getattr(value, "op", None), "name", "") == "relax.astype"
        if not is_widened or str(value.ty.dtype) != _SUMS:
            return None
        return value.args[0] if str(value.args[0].ty.dtype) == dtype else None
