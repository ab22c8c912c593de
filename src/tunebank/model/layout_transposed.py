"""A transposed convolution as an ordinary one, channels last.

Stride s, kernel w of size k: y[s·i + t] += x[i]·w[t]. Written s·q + r for the place in the output,
and s·m + r for the place in the kernel, each *phase* r is a convolution of its own,

    y[s·q + r] = Σ_m x[q - m]·w[s·m + r]        m = 0 … M - 1,  M = ⌈k/s⌉

with a kernel of M values, the missing ones zero. All phases share x: they become the output
channels of one convolution of stride 1, whose result is dealt out to the output's places.

    (N, H, W, C) ─conv2d─▶ (N, H', W', s·s·O) ─deal out─▶ (N, s·H', s·W', O) ─crop─▶

Nothing is multiplied by the zeros that stand between the inputs otherwise (Shi et al., arXiv
1609.07009, say the same of sub-pixel convolutions).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import ir, relax

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class _Axis:
    """One spatial axis of a transposed convolution.

    Attributes:
        size: extent of the input.
        kernel: extent of the kernel.
        stride: the stride.
        before: padding before, which is cropped from the output.
        output: extent of the output.
    """

    size: int
    kernel: int
    stride: int
    before: int
    output: int

    @property
    def taps(self) -> int:
        """Extent of the kernel of one phase."""
        return -(-self.kernel // self.stride)

    @property
    def padding(self) -> tuple[int, int]:
        """Padding of the ordinary convolution."""
        places = -(-(self.before + self.output) // self.stride)
        return self.taps - 1, max(0, places - self.size)

    @property
    def places(self) -> int:
        """Extent of the ordinary convolution's output."""
        return self.size + sum(self.padding) - self.taps + 1


def as_convolution(call: ir.Call, data: Any, kernel: Array, emit: Any) -> Any:
    """The call of `conv2d_transpose` as ordinary operators, channels last.

    Args:
        call: the call, in NCHW with a kernel in IOHW, without dilation.
        data: its input, channels last.
        kernel: its constant kernel.
        emit: binds an expression to a variable.
    """
    attrs = call.attrs
    groups, dtype = int(attrs.groups), str(call.args[1].ty.dtype)
    shape = [int(extent) for extent in data.ty.shape]
    output = [int(extent) for extent in call.ty.shape][2:]
    axes = [
        _Axis(shape[1 + i], kernel.shape[2 + i], int(attrs.strides[i]), before, output[i])
        for i, before in enumerate(int(attrs.padding[i]) for i in (0, 1))
    ]
    (top, bottom), (left, right) = (axis.padding for axis in axes)
    phases = emit(
        relax.op.nn.conv2d(
            data,
            relax.const(_phases(kernel, axes, groups), dtype),
            padding=[top, left, bottom, right],
            groups=groups,
            data_layout="NHWC",
            kernel_layout="HWIO",
            out_layout="NHWC",
            out_dtype=attrs.out_dtype or None,
        )
    )
    return _dealt_out(phases, axes, shape[0], groups, kernel.shape[1], emit)


def _phases(kernel: Array, axes: list[_Axis], groups: int) -> Array:
    """The kernels of all phases, (taps, taps, I/groups, groups·s·s·O/groups)."""
    high, wide = axes
    inputs, outputs = kernel.shape[:2]
    padded = np.zeros(
        (inputs, outputs, high.taps * high.stride, wide.taps * wide.stride), kernel.dtype
    )
    padded[:, :, : high.kernel, : wide.kernel] = kernel
    split = padded.reshape(
        groups, inputs // groups, outputs, high.taps, high.stride, wide.taps, wide.stride
    )
    # From g i o m r n q to m n i g r q o, the taps last to first.
    turned = split.transpose(3, 5, 1, 0, 4, 6, 2)[::-1, ::-1]
    return np.ascontiguousarray(turned).reshape(high.taps, wide.taps, inputs // groups, -1)


def _dealt_out(
    phases: Any, axes: list[_Axis], batch: int, groups: int, outputs: int, emit: Any
) -> Any:
    """(N, H', W', groups·s·s·O/groups) → (N, H, W, O), cropped."""
    high, wide = axes
    split = [batch, high.places, wide.places, groups, high.stride, wide.stride, outputs]
    parts = emit(relax.op.reshape(phases, split))
    ordered = emit(relax.op.permute_dims(parts, [0, 1, 4, 2, 5, 3, 6]))
    whole = [batch, high.places * high.stride, wide.places * wide.stride, groups * outputs]
    result = emit(relax.op.reshape(ordered, whole))
    begin = [axis.before for axis in axes]
    end = [axis.before + axis.output for axis in axes]
    return relax.op.strided_slice(result, [1, 2], begin, end, assume_inbound=True)
