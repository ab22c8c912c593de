"""AVX-512's instruction that adds up products of bytes, as TVM passes it on to LLVM."""

from __future__ import annotations

from typing import Any

_NAME = "llvm.x86.avx512.vpdpbusd.512"
_TAKES_BYTES = 22
"""From this version of LLVM on the factors are vectors of bytes, as the instruction has it; before
it they were of int32. TVM's own tensor intrinsics know that form alone, and don't build. This goes
when TVM's do."""


def add_products_of_bytes(total: Any, x: Any, w: Any) -> Any:
    """total[k] + the sum over i < 4 of x[i] * w[4 * k + i], for each k < 16.

    Args:
        total: int32x16.
        x: four unsigned bytes as an int32.
        w: int8x64.
    """
    from tvm import tirx
    from tvm.target import codegen

    factors = [tirx.Broadcast(x, 16), w]
    kind = "int8x64" if codegen.llvm_version_major() >= _TAKES_BYTES else "int32x16"
    typed = [one if str(one.ty.dtype) == kind else tirx.reinterpret(kind, one) for one in factors]
    return tirx.call_llvm_pure_intrin("int32x16", _NAME, total, *typed)
