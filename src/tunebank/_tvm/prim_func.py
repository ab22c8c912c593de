"""Repairs of tensor programs that TVM's passes leave inconsistent."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tvm import tirx


def with_own_type(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """The program with the type that its parameters give.

    `RemoveWeightLayoutRewriteBlock` changes the shapes of parameters and leaves the function's
    type as it was, so that calls are checked against the old shapes. Goes when it no longer does.
    """
    from tvm import tirx

    return tirx.PrimFunc(func.params, func.body, func.ret_type, func.attrs, func.span)
