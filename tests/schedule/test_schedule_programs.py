"""Programs of their own: the numbers are the kernel's, at every extent."""

from __future__ import annotations

import json

import pytest

from programs import (
    conv2d,
    elementwise,
    gated,
    global_mean,
    kernel,
    layer_norm,
    matmul,
    pool,
    softmax,
    transpose,
)
from tunebank.bank import SqlBank
from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.measure import LocalMeasurer
from tunebank.schedule import IllegalScheduleError, Space, Trace, default_schedule
from tunebank.schedule.gates import gates_trace
from tunebank.schedule.pixels import pixels_trace
from tunebank.schedule.planes import planes_trace
from tunebank.schedule.programs import KINDS, is_own_program
from tunebank.schedule.rows import rows_trace
from tunebank.search.deposit import to_record
from tunebank.transfer import match
from tunebank.transfer.adapt import adapt


@pytest.mark.parametrize("columns", [1, 7, 16, 49, 64, 100, 128, 197])
def test_softmax_row_by_row(columns: int, device: Device, measurer: LocalMeasurer) -> None:
    target = kernel(softmax(rows=5, columns=columns))
    trace = rows_trace(target)
    assert trace is not None
    (result,) = measurer.measure([Space(target, device).apply(trace)], best_us={})
    assert (result.status, result.checked) == ("ok", True), result.error


@pytest.mark.parametrize("columns", [30, 96, 768])
def test_layer_norm_row_by_row(columns: int, device: Device, measurer: LocalMeasurer) -> None:
    target = kernel(layer_norm(rows=6, columns=columns))
    trace = rows_trace(target)
    assert trace is not None
    (result,) = measurer.measure([Space(target, device).apply(trace)], best_us={})
    assert (result.status, result.checked) == ("ok", True), result.error


@pytest.mark.parametrize("shape", [(1, 1, 16), (1, 7, 48), (3, 5, 32), (1, 40, 16)], ids=str)
@pytest.mark.parametrize("how", ["sum", "max", "squares"])
def test_pixels_of_a_channel(
    how: str, shape: tuple[int, int, int], device: Device, measurer: LocalMeasurer
) -> None:
    batch, size, channels = shape
    target = kernel(global_mean(batch=batch, size=size, channels=channels, how=how))
    trace = pixels_trace(target, device)
    assert trace is not None
    (result,) = measurer.measure([Space(target, device).apply(trace)], best_us={})
    assert (result.status, result.checked) == ("ok", True), result.error


@pytest.mark.parametrize("epilogue", [(), ("relu", "add")], ids=str)
@pytest.mark.parametrize(
    ("batch", "size", "squeezed", "channels"),
    [(1, 2, 3, 16), (1, 7, 8, 48), (3, 5, 4, 32), (1, 2, 64, 256), (1, 40, 6, 16)],
)  # by lines, and by channels where there are more weights than pixels
def test_an_image_weighted_by_channel(
    batch: int,
    size: int,
    squeezed: int,
    channels: int,
    epilogue: tuple[str, ...],
    device: Device,
    measurer: LocalMeasurer,
) -> None:
    program = gated(batch=batch, size=size, squeezed=squeezed, channels=channels, epilogue=epilogue)
    target = kernel(program)
    trace = gates_trace(target, device)
    assert trace is not None
    (result,) = measurer.measure([Space(target, device).apply(trace)], best_us={})
    assert (result.status, result.checked) == ("ok", True), result.error


@pytest.mark.parametrize("epilogue", [(), ("relu",), ("tanh", "add")], ids=str)
@pytest.mark.parametrize(
    ("shape", "order"),
    [
        ((1, 3, 12, 33), (0, 2, 3, 1)),
        ((2, 1, 9, 16), (0, 2, 3, 1)),
        ((1, 12, 17, 4), (0, 3, 1, 2)),
        ((3, 20, 31), (1, 2, 0)),
    ],
    ids=str,
)
def test_planes_and_pixels(
    shape: tuple[int, ...],
    order: tuple[int, ...],
    epilogue: tuple[str, ...],
    device: Device,
    measurer: LocalMeasurer,
) -> None:
    target = kernel(transpose(shape, order, epilogue=epilogue))
    trace = planes_trace(target)
    assert trace is not None
    (result,) = measurer.measure([Space(target, device).apply(trace)], best_us={})
    assert (result.status, result.checked) == ("ok", True), result.error


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        (kernel(softmax()), "Rows"),
        (kernel(layer_norm()), "Rows"),
        (kernel(global_mean(size=9)), "Pixels"),
        (kernel(global_mean(size=9, how="squares")), "Pixels"),
        (kernel(global_mean(size=9, channels=20)), None),
        (kernel(transpose((1, 3, 12, 33), (0, 2, 3, 1))), "Planes"),
        (kernel(transpose((1, 32, 12, 33), (0, 2, 3, 1))), None),
        (kernel(transpose((1, 12, 33, 3), (0, 2, 1, 3))), None),
        (kernel(transpose((1, 3, 1, 33), (0, 2, 3, 1))), None),
        (kernel(gated()), "Gates"),
        (kernel(gated(size=1)), None),
        (kernel(gated(channels=20)), None),
        (kernel(pool()), None),
        (kernel(matmul()), None),
        (kernel(conv2d()), None),
        (kernel(elementwise()), None),
    ],
    ids=lambda one: one.blocks[-1] + one.key[:4] if isinstance(one, Kernel) else str(one),
)
def test_the_default_schedule_is_such_a_program_where_it_fits(
    target: Kernel, kind: str | None, device: Device
) -> None:
    found = default_schedule(Space(target, device))
    assert found is not None
    assert is_own_program(found.trace) == (kind is not None)
    if kind is not None:
        assert found.trace.instructions[0].kind == kind
        assert found.schedule is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", [[["x"], [], []], [[], [1], []], [[], [], ["x"]]], ids=str)
def test_a_stranger_s_step_is_refused(kind: str, step: list[list[object]], device: Device) -> None:
    inputs, attributes, outputs = step
    for target in (kernel(softmax()), kernel(global_mean()), kernel(matmul())):
        text = json.dumps([[[kind, inputs, attributes, outputs]], []])
        with pytest.raises(IllegalScheduleError):
            Space(target, device).apply(Trace.from_text(text))
        twice = json.dumps([[[kind, [], [], []], [kind, [], [], []]], []])
        with pytest.raises(IllegalScheduleError):
            Space(target, device).apply(Trace.from_text(twice))


def test_a_kernel_of_another_kind_is_refused(device: Device) -> None:
    for kind in KINDS:
        with pytest.raises(IllegalScheduleError):
            Space(kernel(matmul()), device).apply(Trace.from_text(f'[[["{kind}",[],[],[]]],[]]'))


def test_equal_kernels_get_equal_programs(device: Device) -> None:
    """What is known of a kernel is kept by its key: another object of the same names others."""
    first, second = kernel(softmax(rows=9)), kernel(softmax(rows=9, names="other_"))
    assert first.key == second.key
    programs = [default_schedule(Space(one, device)) for one in (first, second)]
    kinds = [one.trace.instructions[0].kind for one in programs if one is not None]
    assert kinds == ["Rows", "Rows"]


def test_records_of_such_programs_are_no_candidates_twice(
    device: Device, measurer: LocalMeasurer
) -> None:
    """The target has the same program as its default."""
    donor, target = kernel(softmax(rows=8)), kernel(softmax(rows=12))
    scheduled = default_schedule(Space(donor, device))
    assert scheduled is not None
    (result,) = measurer.measure([scheduled], best_us={})
    bank = SqlBank("sqlite://")
    bank.deposit([to_record(scheduled, result, device, source="other", origin="default")])
    (found,) = match(target, bank)
    assert adapt(found, target, (), device) == []
