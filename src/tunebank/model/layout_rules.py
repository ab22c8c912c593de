"""What each operator becomes when its operands are channels last; see `layout.py`.

A rule gets a call and the forms of its operands, and returns the call channels last, or None if
this very call can't be. Axes are those of the model's own form; below they are moved,

    axis of (N, C, H, W)      0  1  2  3
    axis of (N, H, W, C)      0  3  1  2
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from tvm import ir, relax

from tunebank import _tvm
from tunebank.model.layout_transposed import as_convolution


class Forms(Protocol):
    """What a rule asks of the walk; see `layout.py`."""

    def is_last(self, expr: Any) -> bool:
        """Whether channels last is the form that the value was computed in."""

    def first(self, expr: Any) -> Any:
        """The value in the model's own form."""

    def last(self, expr: Any) -> Any:
        """The value channels last."""

    def constant(self, expr: Any) -> Any:
        """The value as an array if it is constant, else None."""

    def binding(self, expr: Any) -> Any:
        """The model's own expression that a variable stands for; None if it stands for none."""

    def emit(self, expr: Any) -> Any:
        """A variable bound to an expression."""


@dataclass(frozen=True)
class Result:
    """What a call becomes: an expression, and whether it is in channels-last form."""

    expr: Any
    is_last: bool = True


Rule = Callable[[Any, Forms], "Result | None"]
_LEAST_RANK = 3  # a batch, channels, and at least one axis more


def channels_last(rank: int) -> tuple[int, ...]:
    """Order of the axes that makes (N, C, ...) into (N, ..., C)."""
    return (0, *range(2, rank), 1)


def channels_first(rank: int) -> tuple[int, ...]:
    """Order of the axes that makes (N, ..., C) into (N, C, ...)."""
    return (0, rank - 1, *range(1, rank - 1))


def rule_of(call: ir.Call, forms: Forms) -> Rule | None:
    """The rule to apply to a call; None if it stays as it is."""
    name = getattr(call.op, "name", "")
    if name in _STARTING:
        return _STARTING[name]
    operands = call.args[0].fields if name == "relax.concat" else call.args
    if name in _RULES and any(forms.is_last(operand) for operand in operands):
        return _RULES[name]
    return _ELSEWHERE.get(name)


def _moved(axis: int, rank: int) -> int:
    """Where an axis of the model's own form is channels last."""
    return channels_last(rank).index(axis % rank)


def _rank(expr: Any) -> int:
    return len(expr.ty.shape)


def _shape(expr: Any) -> tuple[int, ...]:
    return tuple(int(extent) for extent in expr.ty.shape)


def _spatial_axes(layout: str) -> str | None:
    """Names of the spatial axes of a layout: HW of NCHW, DHW of NCDHW; None of any other."""
    return {"NCHW": "HW", "NCDHW": "DHW"}.get(str(layout))


# -- convolution


def _convolution(call: ir.Call, forms: Forms) -> Result | None:
    attrs = call.attrs
    axes = _spatial_axes(attrs.data_layout)
    if axes is None or attrs.kernel_layout != f"OI{axes}":
        return None
    order = [*range(2, 2 + len(axes)), 1, 0]
    weight = forms.constant(call.args[1])
    if weight is not None:
        kernel = relax.const(_tvm.tensor_of(weight.transpose(order)))
    else:
        kernel = forms.emit(relax.op.permute_dims(forms.first(call.args[1]), order))
    make = getattr(relax.op.nn, str(call.op.name).rpartition(".")[2])
    return Result(
        make(
            forms.last(call.args[0]),
            kernel,
            strides=list(attrs.strides),
            padding=list(attrs.padding),
            dilation=list(attrs.dilation),
            groups=int(attrs.groups),
            data_layout=f"N{axes}C",
            kernel_layout=f"{axes}IO",
            out_layout=f"N{axes}C",
            out_dtype=attrs.out_dtype or None,
        )
    )


def _conv2d_transpose(call: ir.Call, forms: Forms) -> Result | None:
    attrs = call.attrs
    kernel = forms.constant(call.args[1])
    if (attrs.data_layout, attrs.kernel_layout) != ("NCHW", "IOHW") or kernel is None:
        return None
    kernel = _dilated(kernel, [int(step) for step in attrs.dilation])
    return Result(as_convolution(call, forms.last(call.args[0]), kernel, forms.emit))


def _dilated(kernel: Any, steps: Sequence[int]) -> Any:
    """A kernel (I, O, H, W) with zeros between its values, so that its dilation is 1."""
    sizes = [(size - 1) * step + 1 for size, step in zip(kernel.shape[2:], steps, strict=True)]
    wide = np.zeros((*kernel.shape[:2], *sizes), kernel.dtype)
    wide[:, :, :: steps[0], :: steps[1]] = kernel
    return wide


# -- operators that work on one element, one axis or one window at a time


def _elementwise(call: ir.Call, forms: Forms) -> Result | None:
    rank = len(call.ty.shape)
    operands = [_operand(arg, rank, forms) for arg in call.args]
    return Result(ir.Call(call.op, operands, call.attrs, call.ty_args))


def _operand(arg: Any, rank: int, forms: Forms) -> Any:
    """An operand of an elementwise operator, broadcast as in the model's own form."""
    if not isinstance(getattr(arg, "ty", None), relax.TensorType) or _rank(arg) == 0:
        return arg  # a scalar
    if _rank(arg) == rank:
        return forms.last(arg)
    shape = (1,) * (rank - _rank(arg)) + _shape(arg)
    array = forms.constant(arg)
    if array is not None:
        array = array.reshape(shape).transpose(channels_last(rank))
        return relax.const(_tvm.tensor_of(array))
    padded = forms.emit(relax.op.reshape(forms.first(arg), shape))
    return relax.op.permute_dims(padded, list(channels_last(rank)))


def _pool(call: ir.Call, forms: Forms) -> Result | None:
    attrs = call.attrs
    axes = _spatial_axes(attrs.layout)
    if axes is None:
        return None
    make = getattr(relax.op.nn, str(call.op.name).rpartition(".")[2])
    return Result(
        make(
            forms.last(call.args[0]),
            pool_size=list(attrs.pool_size),
            strides=list(attrs.strides),
            padding=list(attrs.padding),
            dilation=list(attrs.dilation),
            ceil_mode=bool(attrs.ceil_mode),
            count_include_pad=bool(attrs.count_include_pad),
            layout=f"N{axes}C",
        )
    )


def _adaptive_pool(call: ir.Call, forms: Forms) -> Result | None:
    if call.attrs.layout != "NCHW":
        return None
    size = call.attrs.output_size
    output = None if size is None else tuple(int(extent) for extent in size)
    return Result(relax.op.nn.adaptive_avg_pool2d(forms.last(call.args[0]), output, layout="NHWC"))


def _resize(call: ir.Call, forms: Forms) -> Result | None:
    attrs = call.attrs
    if attrs.layout != "NCHW":
        return None
    return Result(
        relax.op.image.resize2d(
            forms.last(call.args[0]),
            call.args[1],
            roi=[float(value) for value in attrs.roi],
            layout="NHWC",
            method=attrs.method,
            coordinate_transformation_mode=attrs.coordinate_transformation_mode,
            rounding_method=attrs.rounding_method,
            cubic_alpha=float(attrs.cubic_alpha),
            cubic_exclude=int(attrs.cubic_exclude),
            extrapolation_value=float(attrs.extrapolation_value),
            out_dtype=attrs.out_dtype or None,
        )
    )


def _softmax(call: ir.Call, forms: Forms) -> Result | None:
    make = getattr(relax.op.nn, str(call.op.name).rpartition(".")[2])
    axis = _moved(int(call.attrs.axis), _rank(call.args[0]))
    return Result(make(forms.last(call.args[0]), axis))


def _prelu(call: ir.Call, forms: Forms) -> Result | None:
    axis = _moved(int(call.attrs.axis), _rank(call.args[0]))
    return Result(relax.op.nn.prelu(forms.last(call.args[0]), forms.first(call.args[1]), axis))


def _norm(call: ir.Call, forms: Forms) -> Result | None:
    """`instance_norm` and `group_norm`: statistics over axes, one scale per channel."""
    attrs, rank = call.attrs, _rank(call.args[0])
    data, scale, shift = call.args
    operands = (forms.last(data), forms.first(scale), forms.first(shift))
    axes = [_moved(int(axis), rank) for axis in attrs.axes]
    channel = _moved(int(attrs.channel_axis), rank)
    epsilon = float(attrs.epsilon)
    if call.op.name == "relax.nn.instance_norm":
        made = relax.op.nn.instance_norm(*operands, channel, axes, epsilon)
    else:
        made = relax.op.nn.group_norm(*operands, int(attrs.num_groups), channel, axes, epsilon)
    return Result(made)


def _quantize(call: ir.Call, forms: Forms) -> Result | None:
    data, scale, zero_point = call.args
    axis = _moved(int(call.attrs.axis), _rank(data))
    make = getattr(relax.op, str(call.op.name).rpartition(".")[2])
    operands = (forms.last(data), forms.first(scale), forms.first(zero_point))
    return Result(make(*operands, axis, str(call.attrs.out_dtype)))


def _pad(call: ir.Call, forms: Forms) -> Result | None:
    attrs, rank = call.attrs, _rank(call.args[0])
    widths = [int(width) for width in attrs.pad_width]
    moved = [widths[2 * axis + end] for axis in channels_last(rank) for end in (0, 1)]
    data, mode = forms.last(call.args[0]), str(attrs.pad_mode)
    return Result(relax.op.nn.pad(data, moved, mode, float(attrs.pad_value)))


def _concat(call: ir.Call, forms: Forms) -> Result | None:
    parts = [forms.last(part) for part in call.args[0].fields]
    return Result(relax.op.concat(parts, _moved(int(call.attrs.axis), len(call.ty.shape))))


def _split(call: ir.Call, forms: Forms) -> Result | None:
    axis = _moved(int(call.attrs.axis), _rank(call.args[0]))
    sections = call.attrs.indices_or_sections
    parts = int(sections) if hasattr(sections, "value") else [int(index) for index in sections]
    return Result(relax.op.split(forms.last(call.args[0]), parts, axis))


def _slice(call: ir.Call, forms: Forms) -> Result | None:
    rank = _rank(call.args[0])
    axes = [_moved(int(axis), rank) for axis in call.args[1].fields]
    bounds = [list(argument.fields) for argument in call.args[2:]]
    inbound = bool(call.attrs.assume_inbound)
    made = relax.op.strided_slice(forms.last(call.args[0]), axes, *bounds, assume_inbound=inbound)
    return Result(made)


def _broadcast(call: ir.Call, forms: Forms) -> Result | None:
    data, shape = call.args[0], [int(extent) for extent in call.ty.shape]
    if _rank(data) != len(shape):
        return None
    moved = [shape[axis] for axis in channels_last(len(shape))]
    return Result(relax.op.broadcast_to(forms.last(data), moved))


# -- operators that change the number or the order of the axes


def _reduce(call: ir.Call, forms: Forms) -> Result | None:
    data, attrs = call.args[0], call.attrs
    rank = _rank(data)
    axes = range(rank) if attrs.axis is None else [int(axis) % rank for axis in attrs.axis]
    kept = [axis for axis in range(rank) if axis not in axes]
    make = getattr(relax.op, str(call.op.name).rpartition(".")[2])
    made = make(forms.last(data), [_moved(axis, rank) for axis in axes], bool(attrs.keepdims))
    if attrs.keepdims:
        return Result(made)
    moved = [_moved(axis, rank) for axis in kept]
    return Result(made, is_last=False) if moved == sorted(moved) else None


def _transpose(call: ir.Call, forms: Forms) -> Result | None:
    data, rank = call.args[0], _rank(call.args[0])
    reverse = range(rank - 1, -1, -1)
    axes = reverse if call.attrs.axes is None else [int(axis) for axis in call.attrs.axes]
    if forms.is_last(data):
        order = [channels_first(rank)[axis] for axis in axes]
        same = order == list(range(rank))
        value = forms.last(data)
        return Result(value if same else relax.op.permute_dims(value, order), is_last=False)
    if rank >= _LEAST_RANK and tuple(axes) == channels_first(rank):
        return Result(forms.first(data))  # the model itself was channels last here
    return None


def _reshape(call: ir.Call, forms: Forms) -> Result | None:
    data, shape = call.args[0], [int(extent) for extent in call.ty.shape]
    batch, channels, *spatial = _shape(data)
    if len(shape) >= 3 and shape[:2] == [batch, channels]:
        return Result(relax.op.reshape(forms.last(data), [batch, *shape[2:], channels]))
    if math.prod(spatial) == 1:
        return Result(relax.op.reshape(forms.last(data), shape), is_last=False)
    return None


def _shuffle(call: ir.Call, forms: Forms) -> Result | None:
    """The last of three that shuffle channels: (N, GC, H, W), (N, G, C, H, W), (N, C, G, H, W)."""
    swapped = forms.binding(call.args[0])
    if not _is_call(swapped, "relax.permute_dims") or swapped.attrs.axes is None:
        return None
    divided = forms.binding(swapped.args[0])
    rank = _rank(swapped)
    if [int(axis) for axis in swapped.attrs.axes] != [0, 2, 1, *range(3, rank)]:
        return None
    if not _is_call(divided, "relax.reshape") or not forms.is_last(divided.args[0]):
        return None
    batch, groups, each, *spatial = _shape(divided)
    whole = (batch, groups * each, *spatial)
    if not _shape(divided.args[0]) == whole == _shape(call):
        return None
    grouped = forms.emit(
        relax.op.reshape(forms.last(divided.args[0]), [batch, *spatial, groups, each])
    )
    axes = [*range(rank - 2), rank - 1, rank - 2]
    shuffled = forms.emit(relax.op.permute_dims(grouped, axes))
    return Result(relax.op.reshape(shuffled, [batch, *spatial, groups * each]))


def _is_call(expr: Any, name: str) -> bool:
    return isinstance(expr, ir.Call) and getattr(expr.op, "name", "") == name


def _squeeze(call: ir.Call, forms: Forms) -> Result | None:
    return _reshape(call, forms) if len(call.ty.shape) >= 2 else None


def _expand(call: ir.Call, forms: Forms) -> Result | None:
    return _reshape(call, forms)


def _named(prefix: str, names: str) -> Sequence[str]:
    return [f"{prefix}{name}" for name in names.split()]


_STARTING: dict[str, Rule] = {
    **dict.fromkeys(_named("relax.nn.", "conv2d conv3d"), _convolution),
    "relax.nn.conv2d_transpose": _conv2d_transpose,
}
"""Operators that are channels last whatever their operands are."""

_ELSEWHERE: dict[str, Rule] = {"relax.permute_dims": _transpose, "relax.reshape": _shuffle}
"""Operators whose rule looks at its operands itself."""

_RULES: dict[str, Rule] = {
    **dict.fromkeys(
        _named(
            "relax.",
            "abs acos acosh asin asinh atan atanh ceil clip cos cosh erf exp floor isfinite isinf "
            "isnan log negative round rsqrt sigmoid sign sin sinh sqrt square tan tanh trunc "
            "astype bitwise_not logical_not add subtract multiply divide floor_divide power mod "
            "floor_mod maximum minimum equal not_equal less less_equal greater greater_equal "
            "logical_and logical_or logical_xor where",
        ),
        _elementwise,
    ),
    **dict.fromkeys(
        _named("relax.nn.", "relu relu6 leakyrelu gelu gelu_tanh silu selu softplus"), _elementwise
    ),
    **dict.fromkeys(_named("relax.nn.", "max_pool2d avg_pool2d max_pool3d avg_pool3d"), _pool),
    "relax.nn.adaptive_avg_pool2d": _adaptive_pool,
    "relax.image.resize2d": _resize,
    **dict.fromkeys(_named("relax.nn.", "softmax log_softmax"), _softmax),
    "relax.nn.prelu": _prelu,
    **dict.fromkeys(_named("relax.nn.", "instance_norm group_norm"), _norm),
    **dict.fromkeys(_named("relax.", "quantize dequantize"), _quantize),
    "relax.nn.pad": _pad,
    "relax.concat": _concat,
    "relax.split": _split,
    "relax.strided_slice": _slice,
    "relax.broadcast_to": _broadcast,
    **dict.fromkeys(_named("relax.", "mean sum max min prod variance std"), _reduce),
    "relax.reshape": _reshape,
    "relax.squeeze": _squeeze,
    "relax.expand_dims": _expand,
}
"""Operators that follow an operand that is channels last."""
