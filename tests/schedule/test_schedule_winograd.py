"""Winograd's filtering: whatever is around the convolution, the numbers are the kernel's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tvm import ir

from programs import conv2d, depthwise_conv2d, kernel, matmul
from tunebank.bank import SqlBank
from tunebank.device import Device, detect_device
from tunebank.kernel import Kernel
from tunebank.measure import LocalMeasurer
from tunebank.measure.packing import WinogradPacking, packings
from tunebank.schedule import IllegalScheduleError, Scheduled, Space, Trace
from tunebank.schedule.convolution import as_convolution
from tunebank.schedule.winograd import (
    GROWTH,
    WEIGHT,
    Parameters,
    error_growth,
    expected_octaves_of,
    fits,
    parameters_of,
    shares_of_a_block,
    suitable,
    winograd_traces,
)
from tunebank.search.deposit import to_record
from tunebank.transfer import match
from tunebank.transfer.adapt import adapt


def convolution(**changes: Any) -> Kernel:
    """A convolution whose weight is a constant."""
    func = conv2d(**{"size": 9, "cin": 32, "cout": 32, **changes})
    return kernel(func.with_attr("layout_free_buffers", [1]))


def scheduled(target: Kernel, device: Device, parameters: Parameters) -> Scheduled:
    return Space(target, device).apply(parameters.trace)


EPILOGUES = [(), ("bias",), ("wide_bias", "relu"), ("wide_bias", "add", "relu"), ("bias", "tanh")]


@pytest.mark.parametrize(("blocks", "groups", "threads", "shares"), [
    (1, 4, 2, 2), (1, 3, 2, 1), (2, 4, 2, 1), (9, 4, 2, 1), (3, 8, 8, 2), (1, 6, 8, 6),
])  # fmt: skip
def test_columns_are_shared_out_where_blocks_do_not_suffice(
    blocks: int, groups: int, threads: int, shares: int
) -> None:
    assert shares_of_a_block(blocks, groups, threads) == shares


@pytest.mark.parametrize("given", [(2, 30, 6, 1), (4, 9, 3, 1)], ids=str)
def test_the_numbers_of_one_block(
    given: tuple[int, int, int, int], device: Device, measurer: LocalMeasurer
) -> None:
    target = convolution(epilogue=("wide_bias", "add", "relu"))
    (result,) = measurer.measure([scheduled(target, device, Parameters(*given))], best_us={})
    assert (result.status, result.checked) == ("ok", True), result.error


@pytest.mark.parametrize("epilogue", EPILOGUES, ids="-".join)
@pytest.mark.parametrize(("outputs", "window"), list(WEIGHT))
def test_the_numbers_are_the_kernel_s(
    outputs: int,
    window: int,
    epilogue: tuple[str, ...],
    device: Device,
    measurer: LocalMeasurer,
) -> None:
    target = convolution(epilogue=epilogue, window=window)
    one = scheduled(target, device, Parameters(outputs, 6, 3, 2 if device.vector_lanes < 32 else 1))
    (result,) = measurer.measure([one], best_us={})
    assert result.status == "ok", result.error
    assert result.checked


@pytest.mark.parametrize(
    "shape",
    [{"size": 8}, {"size": 7}, {"size": 5, "padding": 0}, {"size": 6, "batch": 3}, {"size": 3}],
    ids=str,
)
def test_every_extent_is_covered(
    shape: dict[str, int], device: Device, measurer: LocalMeasurer
) -> None:
    target = convolution(**shape, cin=16, epilogue=["wide_bias"] if "batch" not in shape else [])
    for parameters in (Parameters(4, 4, 4, 1), Parameters(2, 10, 5, 2)):
        (result,) = measurer.measure([scheduled(target, device, parameters)], best_us={})
        assert (result.status, result.checked) == ("ok", True), result.error
    wide = convolution(**{**shape, "padding": 2}, cin=16, window=5)
    (result,) = measurer.measure([scheduled(wide, device, Parameters(2, 4, 4, 1))], best_us={})
    assert (result.status, result.checked) == ("ok", True), result.error


def test_a_wrong_weight_is_found(device: Device, measurer: LocalMeasurer) -> None:
    """So that the tests above can fail: a program with another m than its weight."""
    one = scheduled(convolution(size=8), device, Parameters(4, 4, 4, 1))
    assert one.program is not None
    func = one.program["main"]
    spoiled = func.with_attr("tunebank.winograd", [1, 4, 3, 2 * device.vector_lanes])
    wrong = replace(one, program=ir.IRModule({"main": spoiled}))
    (result,) = measurer.measure([wrong], best_us={})
    assert result.status != "ok" or not result.checked


def test_the_weight_is_transformed_as_the_paper_says() -> None:
    """F(2, 3) on one channel, by hand."""
    weight = np.arange(9, dtype=np.float32).reshape(3, 3, 1, 1)
    packed = WinogradPacking(1, 2, 3, 1).apply(weight).reshape(4, 4)
    g = weight[:, :, 0, 0]
    assert packed[0, 0] == g[0, 0]
    assert packed[3, 3] == g[2, 2]
    assert packed[1, 1] == pytest.approx(g.sum() / 4)
    assert packed[0, 1] == pytest.approx(g[0].sum() / 2)


def test_packing_keeps_the_kernel_s_shape(device: Device) -> None:
    one = scheduled(convolution(cin=16, cout=64), device, Parameters(4, 4, 4, 2))
    (packing,) = packings(one.module)
    packed = [int(extent) for extent in one.module["main"].params[1].shape]
    assert packing.plain_shape(packed) == (3, 3, 16, 64)
    weight = np.ones((3, 3, 16, 64), np.float32)
    assert packing.apply(weight).shape == tuple(packed)


@pytest.mark.parametrize(
    "target",
    [
        kernel(conv2d(size=9, cin=32, cout=32)),  # the weight is no constant
        convolution(stride=2),
        convolution(window=1),
        convolution(window=7),
        convolution(dilation=2),
        convolution(cin=3),
        convolution(cout=20),
        convolution(layout="NCHW"),
        kernel(depthwise_conv2d(channels=32).with_attr("layout_free_buffers", [1])),
        kernel(matmul(m=32, n=32, k=32).with_attr("layout_free_buffers", [1])),
    ],
    ids=lambda one: one.blocks[-1] + one.key[:4],
)
def test_other_kernels_are_left_alone(target: Kernel, device: Device) -> None:
    assert suitable(target, device) is None
    assert winograd_traces(target, device) == []
    assert not fits(target, device, Parameters(4, 4, 4, 1))
    with pytest.raises(IllegalScheduleError):
        scheduled(target, device, Parameters(4, 4, 4, 1))


def test_what_is_around_a_convolution_is_read(device: Device) -> None:
    found = as_convolution(convolution(epilogue=["wide_bias", "add", "relu"]))
    assert found is not None
    assert (found.shape, found.window, found.channels) == ((1, 9, 9, 32), (3, 3), 32)
    assert len(found.steps) == 3


@pytest.mark.parametrize(
    "values",
    [
        [4, 4, 4],
        [4, 4, 4, 1, 1],
        [4, 4, 4, "1"],
        [4, 4, 4, 1.0],
        [4, 4, 4, True],
        [3, 4, 4, 1],
        [4, 4, 3, 1],
        [4, 4, 0, 1],
        [4, 0, 4, 1],
        [4, -4, -4, 1],
        [4, 10**9, 10**9, 1],
        [4, 4, 4, 10**9],
        [4, 4, 4, 3],
    ],
)
def test_a_stranger_s_parameters_are_refused(values: list[Any], device: Device) -> None:
    """A bank may come from anyone."""
    trace = Trace.from_text(
        f'[[["Winograd",[],{values},[]]],[]]'.replace("'", '"').replace("True", "true")
    )
    with pytest.raises(IllegalScheduleError):
        Space(convolution(), device).apply(trace)


def test_more_steps_than_one_are_no_winograd(device: Device) -> None:
    step = '["Winograd",[],[4,4,4,1],[]]'
    with pytest.raises(IllegalScheduleError):
        Space(convolution(), device).apply(Trace.from_text(f"[[{step},{step}],[]]"))


def test_traces_come_back_from_their_text(device: Device) -> None:
    parameters = Parameters(4, 8, 4, 2)
    assert parameters_of(Trace.from_text(parameters.trace.text)) == parameters
    assert parameters_of(Trace.from_text("[[],[]]")) is None


def test_the_larger_tile_rounds_more(device: Device) -> None:
    plain, wide = convolution(), convolution(window=5)
    growth = [error_growth(Parameters(m, 4, 4, 1).trace, plain) for m in (2, 4)]
    assert growth == [GROWTH[4], GROWTH[6]]
    assert 1 < growth[0] < growth[1]
    assert error_growth(Parameters(2, 4, 4, 1).trace, wide) == GROWTH[6]
    assert error_growth(Trace.from_text("[[],[]]"), plain) == 1
    assert not fits(wide, device, Parameters(4, 4, 4, 1)), "it would be an 8x8 tile"


def test_the_most_promising_comes_first(device: Device) -> None:
    target = convolution(size=56, cin=64, cout=64)
    costs = [
        expected_octaves_of(target, device, parameters)
        for trace in winograd_traces(target, device)
        if (parameters := parameters_of(trace))
    ]
    assert costs
    assert costs == sorted(costs)
    assert costs[0] < -0.3, "a quarter of the multiplications"
    small = convolution(size=4, cin=512, cout=512)
    assert winograd_traces(small, device) == [], "its weights would take longer to read"


def test_transforms_weigh_more_where_a_core_does_more_in_a_cycle() -> None:
    target, given = convolution(size=14, cin=256, cout=256), Parameters(2, 7, 7, 2)
    costs = [
        expected_octaves_of(
            target, detect_device(f'{{"kind":"llvm","mcpu":"{mcpu}"}}', threads=1), given
        )
        for mcpu in ("znver4", "emeraldrapids")
    ]
    assert costs[0] < -0.5 < -0.2 < costs[1]


def test_a_donor_s_schedule_serves_other_convolutions(
    device: Device, measurer: LocalMeasurer
) -> None:
    donor, target = convolution(size=8), convolution(size=12, epilogue=["bias", "relu"])
    one = scheduled(donor, device, Parameters(4, 4, 4, 1))
    (result,) = measurer.measure([one], best_us={})
    bank = SqlBank("sqlite://")
    bank.deposit([to_record(one, result, device, source="other", origin="algorithm")])
    (found,) = match(target, bank)
    assert found.level == "anchor"
    (trace,) = adapt(found, target, (), device)
    again = Space(target, device).apply(trace)
    assert parameters_of(again.trace) == Parameters(4, 4, 4, 1)
    assert adapt(found, convolution(size=8, stride=2), (), device) == []
