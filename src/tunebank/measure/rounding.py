"""How far a tensor program's numbers may stray by rounding alone.

Rounding errors of a sum of n terms behave like a random walk, not like a worst case: Higham and
Mary, "A New Approach to Probabilistic Rounding Error Analysis" (SIAM J. Sci. Comput. 41(5), 2019),
bound them by lambda * sqrt(n) * u with u the unit roundoff, except with a probability that falls as
exp(-lambda²/2). Independent errors add in squares, so a program is described by one number,

    variance = sum over its blocks of  roundings of one element * u²        relative to its results

with u of the data type that the block writes: a sum of float16 products kept in float32 rounds as
float32, and once more as float16 where it is stored.

Rounding to 8-bit integers is a rounding like any other, to 2⁻⁸ of the range: two evaluations, each
right, come down on either side of a boundary now and then, a step apart, and what follows carries
the step on.
"""

from __future__ import annotations

import math
from typing import Any

from tvm import ir, tirx

from tunebank.kernel import BlockSite, block_sites
from tunebank.kernel.expressions import expressions, index_expressions

UNIT_ROUNDOFF = {
    "float64": 2.0**-53,
    "float32": 2.0**-24,
    "float16": 2.0**-11,
    "bfloat16": 2.0**-8,
}
"""Half the distance from 1 to the next number."""

_QUANTISED = ("int8", "uint8")
_QUANTISED_ROUNDOFF = 2.0**-8
_FUNCTION_ROUNDINGS = 8
"""Of an element-wise formula: a polynomial for exp or erf is wrong by a few units."""

_REDUCTION = 2  # `IterVar.CommReduce`


def rounding_variance(func: tirx.PrimFunc) -> float:
    """Squared relative error to expect of a program's results; 0 where nothing is rounded."""
    return sum(_block_variance(site) for site in block_sites(func)[1:])


def roundoff(dtype: str) -> float:
    """Unit roundoff of a floating-point type, of the narrowest one for 8-bit floats; 0 of others.

    8-bit floats (`float8_e4m3fn` and its like) keep two or three bits.
    """
    if dtype.startswith("float8"):
        return 2.0**-3
    return UNIT_ROUNDOFF.get(dtype, 0.0)


def _block_variance(site: BlockSite) -> float:
    block = site.block
    if _is_copy(block) or not len(block.writes):
        return 0.0
    written = str(block.writes[0].source.dtype)
    read = [str(region.source.dtype) for region in block.reads]
    if written in _QUANTISED and any(roundoff(dtype) for dtype in read):
        return _QUANTISED_ROUNDOFF**2
    return (_roundings(block) + _coordinate_roundings(block)) * roundoff(written) ** 2


def _roundings(block: Any) -> int:
    extents = [axis.dom.extent for axis in block.iter_vars if int(axis.iter_type) == _REDUCTION]
    known = [int(extent) for extent in extents if isinstance(extent, tirx.IntImm)]
    return math.prod(known) if known else _FUNCTION_ROUNDINGS


def _coordinate_roundings(block: Any) -> int:
    """Of an interpolation whose places are computed in floating point.

    The weights are what is left of a place after its whole part: its error is relative to the
    place, up to the extent, so that it weighs as (extent * u)².
    """
    is_computed = any(
        isinstance(part, tirx.Cast) and roundoff(str(part.value.ty))
        for index in index_expressions(block.body)
        for part in expressions(index)
    )
    extents = [int(e) for e in block.writes[0].source.shape if isinstance(e, tirx.IntImm)]
    return max(extents, default=0) ** 2 if is_computed else 0


def _is_copy(block: Any) -> bool:
    """Whether the block only moves numbers: padding, transposing, gathering."""
    body = block.body
    return isinstance(body, tirx.BufferStore) and _is_moved(body.value)


def _is_moved(value: Any) -> bool:
    if isinstance(value, ir.Call) and str(getattr(value.op, "name", "")).endswith("if_then_else"):
        return all(_is_moved(branch) for branch in value.args[1:])
    return isinstance(value, (ir.TensorLoad, tirx.IntImm, tirx.FloatImm))
