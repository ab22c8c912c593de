"""A canonical text of a tensor program, and the two keys made from it.

Two programs get the same text exactly when they differ in nothing but names. The text is
written by a walk over the function in program order; variables and buffers are numbered by
their first appearance, blocks by their position. Nothing of it depends on TVM's structural
hash (which changes between versions) or on the process.

    kernel key   every number is in the text
    class key    the text is *shape-free*: numbers that follow from the extents are left out

What is left out of a shape-free text, and what stays:

    loop and axis extents, buffer shapes     out
    constants added, compared or stored      out    padding width, bounds of an if, 1/49 in a mean
    factors of an affine index               stay   i*2 + k: stride 2, dilation
    factors inside an index with // or %     out    (i*49 + j) // 7: a reshape, follows the extents
    order of the parameters, of the two      out    skip + conv and conv + skip are one class
      operands of a commutative operator
    axis kinds, dtypes, operators            stay
"""

from __future__ import annotations

import hashlib
from typing import Any

from tvm import ir, tirx
from tvm.s_tir import SBlock, SBlockRealize

from tunebank.kernel.blocks import anchor_position, block_sites

KEY_LENGTH = 24

_BINARY = {
    tirx.Add: "+",
    tirx.Sub: "-",
    tirx.Mul: "*",
    tirx.Div: "/",
    tirx.Mod: "%t",
    tirx.FloorDiv: "//",
    tirx.FloorMod: "%",
    tirx.Min: "min",
    tirx.Max: "max",
    tirx.EQ: "==",
    tirx.NE: "!=",
    tirx.LT: "<",
    tirx.LE: "<=",
    tirx.GT: ">",
    tirx.GE: ">=",
    tirx.And: "and",
    tirx.Or: "or",
}
_COMMUTATIVE = (tirx.Add, tirx.Mul, tirx.Min, tirx.Max)
_DIVISIONS = (tirx.FloorDiv, tirx.FloorMod, tirx.Div, tirx.Mod)


def layout_free(func: tirx.PrimFunc) -> frozenset[int]:
    """Positions of the parameters that are constants and may be laid out anew."""
    return frozenset(int(i) for i in (func.attrs or {}).get("layout_free_buffers", ()))


def kernel_key(func: tirx.PrimFunc) -> str:
    """Key of this very kernel: equal for functions that differ in names alone."""
    return _digest(canonical_text(func, shape_free=False))


def class_key(func: tirx.PrimFunc) -> str:
    """Key of the kernel's class: equal for functions that differ in names and extents."""
    return _digest(canonical_text(func, shape_free=True))


def anchor_key(func: tirx.PrimFunc) -> str | None:
    """Key of the kernel's anchor block alone; None for a kernel without a reduction.

    The shape-free text of the block with strides and dilation left out too: a 1x1 and a
    strided 3x3 convolution, each with whatever is fused before and after, have one anchor.
    """
    sites = block_sites(func)
    position = anchor_position(sites)
    if position is None:
        return None
    return _digest(_Writer(shape_free=True, factors=False).block(sites[position].block))


def canonical_text(func: tirx.PrimFunc, *, shape_free: bool) -> str:
    """The canonical text; see the head of this module."""
    return _Writer(shape_free).function(func)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def _has_division(expr: Any) -> bool:
    if isinstance(expr, _DIVISIONS):
        return True
    if type(expr) in _BINARY:
        return _has_division(expr.a) or _has_division(expr.b)
    return isinstance(expr, tirx.Cast) and _has_division(expr.value)


class _Writer:
    """One walk over one function."""

    def __init__(self, shape_free: bool, *, factors: bool = True) -> None:
        self._shape_free = shape_free
        self._factors = factors
        self._vars: dict[Any, str] = {}
        self._buffers: dict[Any, str] = {}
        self._params: dict[Any, str] = {}

    def function(self, func: tirx.PrimFunc) -> str:
        free = layout_free(func)
        self._params = {
            param: f"param{'/layout_free' if index in free else ''} "
            for index, param in enumerate(func.params)
        }
        # In a shape-free text a parameter is declared where it is first used instead.
        params = [] if self._shape_free else [self._declare(param) for param in func.params]
        return "\n".join([*params, self._stmt(func.body)])

    def _declare(self, var: Any) -> str:
        role = self._params.get(var, "")
        if not tirx.is_buffer_var(var):
            return f"{role}{self._var(var)}:{var.ty}"
        name = self._buffers.setdefault(var, f"b{len(self._buffers)}")
        shape = ",".join("?" if self._shape_free else self._expr(e) for e in var.shape)
        return f"{role}{name}:{var.dtype}[{shape}]@{var.scope()}"

    def _buffer(self, buffer: Any) -> str:
        known = self._buffers.get(buffer)
        return known if known is not None else self._declare(buffer)

    def _var(self, var: Any) -> str:
        return self._vars.setdefault(var, f"v{len(self._vars)}")

    def _extent(self, extent: Any) -> str:
        return "?" if self._shape_free else self._expr(extent)

    # -- statements

    def _stmt(self, stmt: Any) -> str:
        if isinstance(stmt, SBlockRealize):
            return self._realize(stmt)
        if isinstance(stmt, tirx.SeqStmt):
            return "{" + "\n".join(self._stmt(part) for part in stmt.seq) + "}"
        if isinstance(stmt, tirx.For):
            head = f"for {self._var(stmt.loop_var)} {int(stmt.kind)} {self._extent(stmt.extent)}"
            return f"{head}\n{self._stmt(stmt.body)}"
        if isinstance(stmt, tirx.BufferStore):
            return f"{self._access(stmt.buffer, stmt.indices)} = {self._expr(stmt.value)}"
        if isinstance(stmt, tirx.IfThenElse):
            other = "" if stmt.else_case is None else f" else {self._stmt(stmt.else_case)}"
            return f"if {self._expr(stmt.condition)} {self._stmt(stmt.then_case)}{other}"
        if isinstance(stmt, tirx.Evaluate):
            return f"eval {self._expr(stmt.value)}"
        return f"{type(stmt).__name__} {stmt}"  # rare (while, extern): names stay in the text

    def _realize(self, realize: SBlockRealize) -> str:
        values = [f"bind {self._expr(value)}" for value in realize.iter_values]
        where = f"where {self._expr(realize.predicate)}"
        return "\n".join([*values, where, self.block(realize.block)])

    def block(self, block: SBlock) -> str:
        lines = ["block"]
        for axis in block.iter_vars:
            extent = self._extent(axis.dom.extent)
            lines.append(f"axis {self._var(axis.var)} kind{int(axis.iter_type)} {extent}")
        lines.extend(f"alloc {self._declare(buffer)}" for buffer in block.alloc_buffers)
        if block.init is not None:
            lines.append(f"init {self._stmt(block.init)}")
        lines.append(self._stmt(block.body))
        return "\n".join(lines)

    # -- expressions

    def _access(self, buffer: Any, indices: Any) -> str:
        return f"{self._buffer(buffer)}[{','.join(self._index(i) for i in indices)}]"

    def _index(self, expr: Any) -> str:
        return self._expr(expr, factors=self._factors and not _has_division(expr))

    def _expr(self, expr: Any, *, factors: bool = False) -> str:
        """Text of an expression; `factors`: literal factors stay in a shape-free text."""
        if isinstance(expr, tirx.IntImm):
            return "#" if self._shape_free else f"{int(expr.value)}"
        if isinstance(expr, tirx.FloatImm):
            value = "#" if self._shape_free else repr(float(expr.value))
            return f"{value}:{expr.ty}"
        if isinstance(expr, ir.TensorLoad):
            return self._access(expr.source, expr.indices)
        if isinstance(expr, ir.Var):
            return self._var(expr)
        if type(expr) in _BINARY:
            return self._binary(expr, factors)
        if isinstance(expr, tirx.Cast):
            return f"cast({expr.ty},{self._expr(expr.value, factors=factors)})"
        if isinstance(expr, tirx.Select):
            parts = (expr.condition, expr.true_value, expr.false_value)
            return f"select({','.join(self._expr(p) for p in parts)})"
        if isinstance(expr, tirx.Not):
            return f"not({self._expr(expr.a)})"
        if isinstance(expr, ir.Call):
            op = getattr(expr.op, "name", None) or str(expr.op)
            return f"{op}:{expr.ty}({','.join(self._expr(a) for a in expr.args)})"
        if isinstance(expr, ir.StringImm):
            return repr(str(expr.value))
        return f"{type(expr).__name__}({expr})"

    def _binary(self, expr: Any, factors: bool) -> str:
        operands = [expr.a, expr.b]
        if isinstance(expr, _COMMUTATIVE) and self._is_new(expr.a) and not self._is_new(expr.b):
            operands.reverse()
        scales = factors and isinstance(expr, tirx.Mul)
        if not self._factors and isinstance(expr, tirx.Mul):
            for one, other in (operands, operands[::-1]):
                if isinstance(one, tirx.IntImm):
                    return self._expr(other)
        left, right = (
            str(int(operand.value))
            if scales and isinstance(operand, tirx.IntImm)
            else self._expr(operand, factors=factors)
            for operand in operands
        )
        return f"({left}{_BINARY[type(expr)]}{right})"

    def _is_new(self, expr: Any) -> bool:
        """Whether the expression loads from a buffer that the text has not named yet."""
        if isinstance(expr, ir.TensorLoad):
            return expr.source not in self._buffers
        if type(expr) in _BINARY:
            return self._is_new(expr.a) or self._is_new(expr.b)
        if isinstance(expr, ir.Call):
            return any(self._is_new(arg) for arg in expr.args)
        return isinstance(expr, tirx.Cast) and self._is_new(expr.value)
