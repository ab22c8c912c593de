"""The relative error to expect of a whole model: the roundings on its deepest path.

Each kernel adds the variance of its own roundings (`measure/rounding.py`) to that of the
argument that has the most: errors of kernels in a row are independent of each other, and relative
to the scale of what they compute, which an addition or a convolution does not shrink on average.
Twice the variance, since the reference rounds too. So the tolerance grows with the square root of
the depth, with that of the length of the sums, and with the unit roundoff of each kernel's data
type.

It knows nothing of the model's conditioning; see `reference.py` for what does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tvm import ir, relax, tirx

from tunebank.measure.rounding import rounding_variance
from tunebank.model import called_name, is_kernel_call


def expected_rounding(
    module: ir.IRModule, *, function: str = "main", growth: Mapping[str, float] | None = None
) -> float:
    """Relative error to expect between two right evaluations of a model.

    Args:
        module: the fused graph, whose function calls unscheduled tensor programs.
        function: which function.
        growth: by tensor program, how many times more than a plain sum its algorithm rounds.
    """
    own: dict[str, float] = {}
    reached: dict[Any, float] = {}
    deepest = 0.0
    for block in module[function].body.blocks:
        for binding in block.bindings:
            value = binding.value
            before = max((reached.get(var, 0.0) for var in _variables(value)), default=0.0)
            reached[binding.var] = before + _own_variance(module, value, own, growth or {})
            deepest = max(deepest, reached[binding.var])
    return math.sqrt(2.0 * deepest)


def _own_variance(
    module: ir.IRModule, value: Any, known: dict[str, float], growth: Mapping[str, float]
) -> float:
    """Of the kernel that a binding calls; other bindings round nothing."""
    if not is_kernel_call(value):
        return 0.0
    name = called_name(value)
    if name not in known:
        func = module[value.args[0]]
        variance = rounding_variance(func) if isinstance(func, tirx.PrimFunc) else 0.0
        known[name] = growth.get(name, 1.0) ** 2 * variance
    return known[name]


def _variables(value: Any) -> list[Any]:
    found: list[Any] = []

    def visit(expr: Any) -> None:
        if isinstance(expr, relax.Var):
            found.append(expr)

    relax.analysis.post_order_visit(value, visit)
    return found
