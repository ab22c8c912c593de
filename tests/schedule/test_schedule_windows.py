"""Windows and pieces: the numbers, and where they are the default."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tvm import te, tirx

from programs import depthwise_conv2d, elementwise, kernel, matmul, pool
from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.measure import LocalMeasurer
from tunebank.schedule import IllegalScheduleError, Space, default_schedule, default_traces
from tunebank.schedule.pieces import KIND as PIECES
from tunebank.schedule.pieces import pieces_trace
from tunebank.schedule.trace import one_step
from tunebank.schedule.windows import KIND as WINDOWS
from tunebank.schedule.windows import windows_trace


def decoded(*, offset: int = 3) -> Kernel:
    """Columns from two arrays, each in a way of its own, after a detector's last layer."""
    x = te.placeholder((2, 5, 37), "float32", name="x")
    y = te.placeholder((2, 5, 37), "float32", name="y")
    squashed = te.compute(x.shape, lambda *at: te.exp(x[at]) / (te.exp(x[at]) + 1.0), "squashed")
    moved = te.compute(
        (2, 5, offset), lambda b, i, j: squashed[b, i, j] * 2.0 + y[b, i, j] * 0.5, "moved"
    )
    joined = te.compute(
        (2, 5, 37),
        lambda b, i, j: tirx.if_then_else(
            j >= offset,
            squashed[b, i, j],
            tirx.if_then_else(i < 2, moved[b, i, j], moved[b, i, j] + 1.0),
        ),
        "joined",
    )
    return kernel(te.create_prim_func([x, y, joined]))


def shuffled() -> Kernel:
    """The same, its indices by division and remainder, as after a reshape."""
    x = te.placeholder((6, 20), "float32", name="x")
    y = te.placeholder((6, 20), "float32", name="y")
    result = te.compute(
        (12, 20),
        lambda i, j: tirx.if_then_else(
            i < 6,
            te.tanh(x[(i * 20 + j) // 20 % 6, (i * 20 + j) % 20]) * 0.5 + 1.0,
            (te.tanh(y[i - 6, j]) * 2.0 + 1.0) * 0.5,
        ),
        "result",
    )
    return kernel(te.create_prim_func([x, y, result]))


def channels_shuffled() -> Kernel:
    """Channels of two images, in turns, as between the units of a ShuffleNet."""
    x, y = (te.placeholder((3, 5, 20), "float32", name=name) for name in "xy")
    joined = te.compute(
        (3, 5, 40),
        lambda i, j, c: tirx.if_then_else(c < 20, x[i, j, c], y[i, j, c - 20]),
        "joined",
    )
    grouped = te.compute(
        (3, 5, 2, 20), lambda i, j, g, c: joined[i, j, (g * 20 + c) % 40], "grouped"
    )
    swapped = te.compute((3, 5, 20, 2), lambda i, j, c, g: grouped[i, j, g, c], "swapped")
    result = te.compute((3, 5, 40), lambda i, j, c: swapped[i, j, c // 2, c % 2], "result")
    return kernel(te.create_prim_func([x, y, result]))


def heads_merged() -> Kernel:
    """The heads of attention side by side again."""
    x = te.placeholder((3, 11, 36), "float32", name="x")
    turned = te.compute((11, 3, 36), lambda i, h, c: x[h, i, c], "turned")
    result = te.compute((11, 108), lambda i, j: turned[i, j // 36, j % 36], "result")
    return kernel(te.create_prim_func([x, result]))


def split() -> Kernel:
    """Two results, the second of them in two ways."""
    x = te.placeholder((7, 50), "float32", name="x")
    doubled = te.compute((7, 50), lambda i, j: x[i, j] + x[i, j], "doubled")
    first = te.compute((7, 20), lambda i, j: doubled[i, j], "first")
    second = te.compute(
        (7, 30),
        lambda i, j: tirx.if_then_else(j < 10, doubled[i, j + 20], te.exp(doubled[i, j + 20])),
        "second",
    )
    return kernel(te.create_prim_func([x, first, second]))


def taken_apart() -> Kernel:
    """Three equal parts and a larger one, each a result."""
    x = te.placeholder((4, 6, 40), "float32", name="x")

    def part(begin: int, count: int) -> te.Tensor:
        return te.compute((4, count, 40), lambda i, j, c: x[i, j + begin, c], f"part{begin}")

    parts = [part(0, 1), part(1, 1), part(2, 1), part(3, 3)]
    return kernel(te.create_prim_func([x, *parts]))


def steps_in_a_row(count: int) -> Kernel:
    """Each reads the one before it five times; two parts of the last are the results."""
    last = x = te.placeholder((4, 32), "float32", name="x")

    def after(b: te.Tensor) -> te.Tensor:
        squared = lambda at: b[at] * b[at]  # noqa: E731
        return te.compute(b.shape, lambda *at: squared(at) * 0.5 + b[at] / (squared(at) + 2.0))

    for _ in range(count):
        last = after(last)
    first = te.compute((4, 20), lambda i, j: last[i, j], "first")
    second = te.compute((4, 12), lambda i, j: last[i, j + 20], "second")
    return kernel(te.create_prim_func([x, first, second]))


def added_to_rows() -> Kernel:
    """The same row added to each."""
    x = te.placeholder((2, 9, 36), "float32", name="x")
    row = te.placeholder((2, 1, 36), "float32", name="row")
    result = te.compute((2, 9, 36), lambda n, i, j: x[n, i, j] + row[n, 0, j], "result")
    return kernel(te.create_prim_func([x, row, result]))


WITH_WINDOWS: dict[str, Callable[[], Kernel]] = {
    "depthwise": lambda: kernel(depthwise_conv2d(size=9, channels=40, epilogue=("bias", "relu"))),
    "pooling": lambda: kernel(pool(size=9, channels=24, window=5, stride=1)),
    "uneven channels": lambda: kernel(depthwise_conv2d(size=9, channels=58, epilogue=("relu",))),
    "large": lambda: kernel(depthwise_conv2d(size=19, channels=40, window=9, epilogue=("bias",))),
    "large pooling": lambda: kernel(pool(size=15, channels=24, window=7, stride=1)),
    "large, every other": lambda: kernel(
        depthwise_conv2d(size=17, channels=24, window=7, stride=2)
    ),
    "large, dilated": lambda: kernel(depthwise_conv2d(size=15, channels=16, window=7, dilation=2)),
}
WITH_PIECES: dict[str, Callable[[], Kernel]] = {
    "decoded": decoded,
    "shuffled": shuffled,
    "channels shuffled": channels_shuffled,
    "heads merged": heads_merged,
    "split": split,
    "taken apart": taken_apart,
    "added to rows": added_to_rows,
    "steps in a row": lambda: steps_in_a_row(4),
}


def is_right(one: Kernel, kind: str, device: Device, measurer: LocalMeasurer, *given: int) -> bool:
    scheduled = Space(one, device).apply(one_step(kind, *given))
    (result,) = measurer.measure([scheduled], best_us={})
    assert (result.status, result.error) == ("ok", None)
    return result.checked


@pytest.mark.parametrize("name", WITH_WINDOWS)
@pytest.mark.parametrize("bands", [1, 3])
def test_the_numbers_of_windows(
    name: str, bands: int, device: Device, measurer: LocalMeasurer
) -> None:
    one = WITH_WINDOWS[name]()
    assert windows_trace(one, device, clearly=False) is not None
    assert is_right(one, WINDOWS, device, measurer, bands)


@pytest.mark.parametrize("name", WITH_PIECES)
def test_the_numbers_of_pieces(name: str, device: Device, measurer: LocalMeasurer) -> None:
    one = WITH_PIECES[name]()
    chosen = default_schedule(Space(one, device))
    assert chosen is not None
    assert chosen.trace.instructions[0].kind == PIECES
    assert is_right(one, PIECES, device, measurer)
    again = WITH_PIECES[name]()
    assert again == one
    Space(again, device).apply(one_step(PIECES))  # its buffers are others


def test_what_reads_often_has_it_by_default_and_a_convolution_tries_it(device: Device) -> None:
    kinds = {
        name: [t.instructions[0].kind for t in default_traces(Space(make(), device))]
        for name, make in WITH_WINDOWS.items()
    }
    for name in ("pooling", "large", "uneven channels"):
        assert kinds[name][0] == WINDOWS
    assert WINDOWS in kinds["depthwise"][1:]
    assert WINDOWS in kinds["large, every other"][1:]


@pytest.mark.parametrize(
    "make",
    [
        lambda: kernel(matmul(m=8, n=32, k=16)),
        lambda: kernel(elementwise()),
        lambda: kernel(pool(size=8, channels=16, window=2)),
    ],
    ids=["matmul", "elementwise", "no overlap"],
)
def test_others_have_none(make: Callable[[], Kernel], device: Device) -> None:
    one = make()
    assert windows_trace(one, device, clearly=False) is None
    assert pieces_trace(one, clearly=False) is None


@pytest.mark.parametrize(
    ("kind", "values"), [(WINDOWS, (0,)), (WINDOWS, (99,)), (WINDOWS, ()), (PIECES, (1,))]
)
def test_a_stranger_s_parameters_are_refused(
    kind: str, values: tuple[int, ...], device: Device
) -> None:
    one = WITH_WINDOWS["pooling"]() if kind == WINDOWS else decoded()
    with pytest.raises(IllegalScheduleError):
        Space(one, device).apply(one_step(kind, *values))


def test_what_would_be_computed_too_often_has_none(device: Device) -> None:
    one = steps_in_a_row(6)
    assert pieces_trace(one, clearly=False) is None
    assert default_schedule(Space(one, device)) is not None
