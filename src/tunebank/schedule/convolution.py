"""A kernel read as a convolution: what goes in, what is convolved, what is done to the results.

    pad_temp[n, y, x, c] = if_then_else(..., data[n, y - 1, x - 1, c], 0)           source
    conv[n, y, x, k]    += pad_temp[n, y + ry, x + rx, c] * weight[ry, rx, c, k]    anchor
    t[n, y, x, k]        = conv[n, y, x, k] + bias[0, 0, 0, k]                      steps
    out[n, y, x, k]      = max(t[n, y, x, k], 0)

A program of our own for the anchor reads values through `source` and hands results through the
steps, whatever they are: they are the kernel's own expressions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import ir, tirx

from tunebank.kernel import BlockSite, Kernel
from tunebank.schedule.factor import is_constant
from tunebank.schedule.pointwise import Load, Step, as_step, element, same, steps_after

_CONV_AXES = 7  # n, y, x, k and ry, rx, c
_REDUCTIONS = 3


@dataclass(frozen=True)
class Convolution:
    """A two-dimensional convolution of stride 1, channels last, and what surrounds it.

    Attributes:
        kernel: the kernel.
        shape: of the results, (N, H, W, K).
        window: (rows, columns).
        channels: of what is convolved.
        weight: position of the weight among the parameters; a constant that may be laid out anew.
        result: the buffer of the bare results.
        steps: what is done to them, in order; none leaves them as they are.
    """

    kernel: Kernel
    shape: tuple[int, int, int, int]
    window: tuple[int, int]
    channels: int
    weight: int
    result: Any
    steps: tuple[Step, ...]
    _input: Any
    _producers: Mapping[Any, Step]

    def source(self, load: Load, place: Sequence[Any]) -> Any:
        """The value to be convolved at (n, y, x, c), counted from where the window begins.

        Args:
            load: makes the element of a parameter.
            place: indices.
        """
        return element(self._input, list(place), load, self._producers)


def as_convolution(kernel: Kernel) -> Convolution | None:
    """The kernel as a convolution of stride 1; None if it is something else."""
    if kernel.anchor is None:
        return None
    site = kernel.sites[kernel.anchor]
    found = _anchor(site)
    if found is None:
        return None
    data, weight = found
    params = list(kernel.func.params)
    if not is_constant(kernel, weight):
        return None
    extents = site.extents or ()
    if len(extents) != _CONV_AXES:
        return None
    n, height, width, k, rows, columns, channels = extents
    steps = steps_after(
        kernel.sites[kernel.anchor + 1 :], site.block.body.buffer, (n, height, width, k)
    )
    producers = _producers(kernel.sites[1 : kernel.anchor])
    if steps is None or producers is None:
        return None
    return Convolution(
        kernel, (n, height, width, k), (rows, columns), channels, params.index(weight),
        site.block.body.buffer, steps, data, producers,
    )  # fmt: skip


def _anchor(site: BlockSite) -> tuple[Any, Any] | None:
    """The buffers of data and weight of a plain convolution of stride 1."""
    block = site.block
    store = block.body
    axes = [axis.var for axis in block.iter_vars]
    if len(axes) != _CONV_AXES or len(site.spatial_loops) != _CONV_AXES - _REDUCTIONS:
        return None
    n, y, x, k, ry, rx, c = axes
    if site.spatial_loops != (0, 1, 2, 3) or not isinstance(store, tirx.BufferStore):
        return None
    if not same(store.indices, (n, y, x, k)) or str(store.buffer.dtype) != "float32":
        return None
    value = store.value
    product = value.b if isinstance(value, tirx.Add) else None
    if not isinstance(product, tirx.Mul) or not same([value.a], [store_value(store)]):
        return None
    data, weight = product.a, product.b
    if not isinstance(data, ir.TensorLoad) or not isinstance(weight, ir.TensorLoad):
        return None
    if not same(data.indices, (n, y + ry, x + rx, c)):
        return None
    if not same(weight.indices, (ry, rx, c, k)):
        return None
    return data.source, weight.source


def store_value(store: tirx.BufferStore) -> Any:
    """The element that a store writes, as it is read."""
    return store.buffer[tuple(store.indices)]


def _producers(sites: Sequence[BlockSite]) -> dict[Any, Step] | None:
    """The blocks before the anchor, by what they write."""
    steps = [as_step(site) for site in sites]
    if any(step is None or len(step.axes) != _CONV_AXES - _REDUCTIONS for step in steps):
        return None
    return {step.result: step for step in steps if step is not None}
