"""Small tensor programs to test with, written in TE.

Each takes `names`, which is put before the name of every block and buffer: two programs that
differ in it alone are the same kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunebank import _tvm

_tvm.prepare()

from tvm import ir, te, tirx  # noqa: E402  after the repairs

from tunebank.kernel import Kernel  # noqa: E402
from tunebank.model import Model, ModelFunction  # noqa: E402


def conv2d(
    *,
    batch: int = 1,
    size: int = 8,
    cin: int = 8,
    cout: int = 16,
    window: int = 3,
    stride: int = 1,
    dilation: int = 1,
    padding: int | None = None,
    dtype: str = "float32",
    layout: str = "NHWC",
    epilogue: Sequence[str] = (),
    names: str = "",
) -> tirx.PrimFunc:
    """A convolution of (batch, size, size, cin) with (window, window, cin, cout)."""
    reach = dilation * (window - 1)
    pad = reach // 2 if padding is None else padding
    out = (size + 2 * pad - reach - 1) // stride + 1
    is_last = layout == "NHWC"
    shape = (batch, size, size, cin) if is_last else (batch, cin, size, size)
    weight_shape = (window, window, cin, cout) if is_last else (cout, cin, window, window)
    x = te.placeholder(shape, dtype, name=f"{names}x")
    w = te.placeholder(weight_shape, dtype, name=f"{names}w")
    padded = _padded(x, pad, axes=(1, 2) if is_last else (2, 3), names=names)
    ry, rx = (te.reduce_axis((0, window), name=f"{names}r{axis}") for axis in "yx")
    rc = te.reduce_axis((0, cin), name=f"{names}rc")

    def channels_last(n: Any, y: Any, z: Any, c: Any) -> Any:
        place = (n, y * stride + ry * dilation, z * stride + rx * dilation, rc)
        return te.sum(padded(*place) * w(ry, rx, rc, c), axis=[ry, rx, rc])

    def channels_first(n: Any, c: Any, y: Any, z: Any) -> Any:
        place = (n, rc, y * stride + ry * dilation, z * stride + rx * dilation)
        return te.sum(padded(*place) * w(c, rc, ry, rx), axis=[rc, ry, rx])

    out_shape = (batch, out, out, cout) if is_last else (batch, cout, out, out)
    rule = channels_last if is_last else channels_first
    result = te.compute(out_shape, rule, name=f"{names}conv")
    return _function([x, w], result, epilogue, names)


def grouped_conv2d(
    *,
    size: int = 8,
    cin: int = 16,
    cout: int = 64,
    groups: int = 2,
    window: int = 3,
    stride: int = 1,
    epilogue: Sequence[str] = (),
    names: str = "",
) -> tirx.PrimFunc:
    """A convolution of (1, size, size, cin) in which each group of results has its own inputs."""
    out, inputs, results = (size - 1) // stride + 1, cin // groups, cout // groups
    x = te.placeholder((1, size, size, cin), name=f"{names}x")
    w = te.placeholder((window, window, inputs, cout), name=f"{names}w")
    padded = _padded(x, window // 2, axes=(1, 2), names=names)
    ry, rx = (te.reduce_axis((0, window), name=f"{names}r{axis}") for axis in "yx")
    rc = te.reduce_axis((0, inputs), name=f"{names}rc")
    result = te.compute(
        (1, out, out, cout),
        lambda n, y, z, k: te.sum(
            padded(n, y * stride + ry, z * stride + rx, k // results * inputs + rc)
            * w(ry, rx, rc, k),
            axis=[ry, rx, rc],
        ),
        name=f"{names}conv",
    )
    return _function([x, w], result, epilogue, names)


def depthwise_conv2d(
    *,
    size: int = 8,
    channels: int = 16,
    window: int = 3,
    stride: int = 1,
    dilation: int = 1,
    epilogue: Sequence[str] = (),
    names: str = "",
) -> tirx.PrimFunc:
    """A depthwise convolution of (1, size, size, channels)."""
    out = (size - 1) // stride + 1
    x = te.placeholder((1, size, size, channels), name=f"{names}x")
    w = te.placeholder((window, window, channels), name=f"{names}w")
    padded = _padded(x, window // 2 * dilation, axes=(1, 2), names=names)
    ry, rx = (te.reduce_axis((0, window), name=f"{names}r{axis}") for axis in "yx")

    def at(position: Any, tap: Any) -> Any:
        return position * stride + tap * dilation

    result = te.compute(
        (1, out, out, channels),
        lambda n, y, z, c: te.sum(padded(n, at(y, ry), at(z, rx), c) * w(ry, rx, c), axis=[ry, rx]),
        name=f"{names}depthwise",
    )
    return _function([x, w], result, epilogue, names)


def matmul(
    *,
    m: int = 16,
    n: int = 16,
    k: int = 16,
    dtype: str = "float32",
    transposed: bool = False,
    epilogue: Sequence[str] = (),
    names: str = "",
) -> tirx.PrimFunc:
    """(m, k) times (k, n), or times the transpose of (n, k)."""
    a = te.placeholder((m, k), dtype, name=f"{names}a")
    b = te.placeholder((n, k) if transposed else (k, n), dtype, name=f"{names}b")
    r = te.reduce_axis((0, k), name=f"{names}r")
    result = te.compute(
        (m, n),
        lambda i, j: te.sum(a[i, r] * (b[j, r] if transposed else b[r, j]), axis=r),
        name=f"{names}matmul",
    )
    return _function([a, b], result, epilogue, names)


def pool(
    *,
    size: int = 8,
    channels: int = 16,
    window: int = 2,
    stride: int | None = None,
    how: str = "max",
    names: str = "",
) -> tirx.PrimFunc:
    """Pooling of (1, size, size, channels), with windows side by side unless a stride is given."""
    step = stride or window
    out = (size - window) // step + 1
    x = te.placeholder((1, size, size, channels), name=f"{names}x")
    ry, rx = (te.reduce_axis((0, window), name=f"{names}r{axis}") for axis in "yx")
    reducer = te.max if how == "max" else te.sum
    result = te.compute(
        (1, out, out, channels),
        lambda n, y, z, c: reducer(x(n, y * step + ry, z * step + rx, c), axis=[ry, rx]),
        name=f"{names}pool",
    )
    return _function([x], result, (), names)


def softmax(*, rows: int = 8, columns: int = 32, names: str = "") -> tirx.PrimFunc:
    """Softmax of (rows, columns) along its rows, in four steps."""
    x = te.placeholder((rows, columns), name=f"{names}x")
    first, second = (te.reduce_axis((0, columns), name=f"{names}r{i}") for i in range(2))
    top = te.compute((rows,), lambda i: te.max(x[i, first], axis=first), name=f"{names}top")
    powers = te.compute(
        (rows, columns), lambda i, j: te.exp(x[i, j] - top[i]), name=f"{names}powers"
    )
    total = te.compute(
        (rows,), lambda i: te.sum(powers[i, second], axis=second), name=f"{names}total"
    )
    result = te.compute(
        (rows, columns), lambda i, j: powers[i, j] / total[i], name=f"{names}softmax"
    )
    return _function([x], result, (), names)


def elementwise(
    *, shape: Sequence[int] = (8, 16), operator: str = "add", names: str = ""
) -> tirx.PrimFunc:
    """One operator on two arrays."""
    a, b = (te.placeholder(tuple(shape), name=f"{names}{name}") for name in "ab")
    rules = {
        "add": lambda *i: a(*i) + b(*i),
        "reversed_add": lambda *i: b(*i) + a(*i),
        "subtract": lambda *i: a(*i) - b(*i),
        "multiply": lambda *i: a(*i) * b(*i),
    }
    return _function([a, b], te.compute(tuple(shape), rules[operator], f"{names}out"), (), names)


def kernel(func: tirx.PrimFunc, *, name: str = "kernel", weight: int = 1) -> Kernel:
    """The kernel of a program."""
    return Kernel.from_prim_func(func, name=name, weight=weight)


def layer_norm(*, rows: int = 8, columns: int = 48, names: str = "") -> tirx.PrimFunc:
    """Layer norm of (rows, columns) along its rows, with a scale and a shift."""
    x = te.placeholder((rows, columns), name=f"{names}x")
    scale = te.placeholder((columns,), name=f"{names}scale")
    shift = te.placeholder((columns,), name=f"{names}shift")
    first, second = (te.reduce_axis((0, columns), name=f"{names}r{i}") for i in range(2))
    total = te.compute((rows,), lambda i: te.sum(x[i, first], axis=first), f"{names}total")
    mean = te.compute((rows,), lambda i: total[i] / columns, f"{names}mean")
    squares = te.compute(
        (rows,),
        lambda i: te.sum((x[i, second] - mean[i]) * (x[i, second] - mean[i]), axis=second),
        f"{names}squares",
    )
    result = te.compute(
        (rows, columns),
        lambda i, j: (
            (x[i, j] - mean[i]) * te.rsqrt(squares[i] / columns + 1e-5) * scale[j] + shift[j]
        ),
        f"{names}norm",
    )
    return te.create_prim_func([x, scale, shift, result])


def global_mean(
    *, batch: int = 1, size: int = 6, channels: int = 32, how: str = "sum", names: str = ""
) -> tirx.PrimFunc:
    """Mean, or the largest value, over all pixels of (batch, size, size, channels).

    `how` is `sum`, `max`, or `squares`, of the distance from a number that each image has.
    """
    x = te.placeholder((batch, size, size, channels), name=f"{names}x")
    ry, rx = (te.reduce_axis((0, size), name=f"{names}r{axis}") for axis in "yx")
    reducer = te.max if how == "max" else te.sum
    inputs, of = [x], x
    if how == "squares":
        middle = te.placeholder((batch, 1, 1, 1), name=f"{names}middle")
        apart = te.compute(
            x.shape, lambda n, y, z, c: x(n, y, z, c) - middle(n, 0, 0, 0), f"{names}apart"
        )
        of = te.compute(x.shape, lambda *i: apart(*i) * apart(*i), f"{names}square")
        inputs = [x, middle]
    reduced = te.compute(
        (batch, 1, 1, channels),
        lambda n, y, z, c: reducer(of(n, ry, rx, c), axis=[ry, rx]),
        name=f"{names}reduced",
    )
    result = te.compute(
        (batch, 1, 1, channels), lambda *i: reduced(*i) / float(size * size), f"{names}mean"
    )
    return te.create_prim_func([*inputs, result])


def gated(
    *,
    batch: int = 1,
    size: int = 6,
    squeezed: int = 8,
    channels: int = 32,
    epilogue: Sequence[str] = (),
    names: str = "",
) -> tirx.PrimFunc:
    """An image of (batch, size, size, channels) weighted by squeeze and excitation."""
    s = te.placeholder((batch, 1, 1, squeezed), name=f"{names}s")
    w = te.placeholder((1, 1, squeezed, channels), name=f"{names}w")
    bias = te.placeholder((1, 1, 1, channels), name=f"{names}bias")
    image = te.placeholder((batch, size, size, channels), name=f"{names}image")
    rc = te.reduce_axis((0, squeezed), name=f"{names}rc")
    shape = (batch, 1, 1, channels)
    layer = te.compute(
        shape, lambda n, y, z, k: te.sum(s(n, y, z, rc) * w(0, 0, rc, k), axis=rc), f"{names}layer"
    )
    added = te.compute(
        shape, lambda n, y, z, k: layer(n, y, z, k) + bias(0, 0, 0, k), f"{names}added"
    )
    gate = te.compute(shape, lambda *i: te.sigmoid(added(*i)), f"{names}gate")
    weighted = te.compute(
        image.shape, lambda n, y, z, k: image(n, y, z, k) * gate(n, 0, 0, k), f"{names}weighted"
    )
    return _function([s, w, bias, image], weighted, epilogue, names)


def transpose(
    shape: Sequence[int], order: Sequence[int], *, epilogue: Sequence[str] = (), names: str = ""
) -> tirx.PrimFunc:
    """An array with its axes in another order: axis i of the result is axis order[i] of it."""
    x = te.placeholder(tuple(shape), name=f"{names}x")
    inverse = [order.index(axis) for axis in range(len(shape))]
    turned = te.compute(
        [shape[axis] for axis in order],
        lambda *place: x(*(place[axis] for axis in inverse)),
        f"{names}turned",
    )
    return _function([x], turned, epilogue, names)


def _padded(x: Any, pad: int, *, axes: Sequence[int], names: str) -> Any:
    if not pad:
        return x
    shape = [extent + 2 * pad * (axis in axes) for axis, extent in enumerate(x.shape)]

    def rule(*place: Any) -> Any:
        inside = [
            condition
            for axis in axes
            for condition in (place[axis] >= pad, place[axis] < x.shape[axis] + pad)
        ]
        moved = [index - pad if axis in axes else index for axis, index in enumerate(place)]
        return tirx.if_then_else(tirx.all(*inside), x(*moved), tirx.const(0, x.dtype))

    return te.compute(shape, rule, name=f"{names}pad")


def _function(inputs: list[Any], result: Any, epilogue: Sequence[str], names: str) -> tirx.PrimFunc:
    for step in epilogue:
        result, more = _after(step, result, f"{names}{step}_{len(inputs)}")
        inputs = [*inputs, *more]
    return te.create_prim_func([*inputs, result])


def _after(step: str, before: Any, label: str) -> tuple[Any, list[Any]]:
    """The result of a step of an epilogue, and the inputs that it needs."""
    shape, dtype = list(before.shape), before.dtype
    if step == "relu":
        zero = tirx.const(0, dtype)
        return te.compute(shape, lambda *i: te.max(before(*i), zero), label), []
    if step == "leaky":

        def leak(*i: Any) -> Any:
            return tirx.if_then_else(before(*i) > 0, before(*i), before(*i) * 0.1)

        return te.compute(shape, leak, label), []
    if step == "tanh":
        return te.compute(shape, lambda *i: te.tanh(before(*i)), label), []
    if step == "add":
        other = te.placeholder(shape, dtype, name=f"{label}_in")
        return te.compute(shape, lambda *i: before(*i) + other(*i), label), [other]
    if step == "choice":  # made in a block of its own
        other = te.placeholder(shape, dtype, name=f"{label}_in")
        rule = lambda *i: tirx.Select(other(*i) > 0, other(*i), 2 * other(*i))  # noqa: E731
        chosen = te.compute(shape, rule, f"{label}_choice")
        return te.compute(shape, lambda *i: before(*i) + chosen(*i), label), [other]
    if step == "bias":
        bias = te.placeholder(shape[-1:], dtype, name=f"{label}_in")
        return te.compute(shape, lambda *i: before(*i) + bias(i[-1]), label), [bias]
    if step == "wide_bias":  # as a convolution's is in a model: (1, 1, 1, C), the batch being 1
        bias = te.placeholder((1, 1, 1, shape[-1]), dtype, name=f"{label}_in")
        rule = lambda n, y, x, c: before(n, y, x, c) + bias(n, 0, 0, c)  # noqa: E731
        return te.compute(shape, rule, label), [bias]
    raise ValueError(step)


def model_of(*kernels: Kernel) -> Model:
    """A model of these kernels, with an empty graph."""
    return Model(
        name="model",
        path=Path("model.onnx"),
        reference=Path("model.onnx"),
        functions=(ModelFunction("main", (), ()),),
        kernels=kernels,
        module=ir.IRModule({}),
        kernel_of={},
    )
