"""Spaces and default schedules: legal for every kind of kernel, whatever its extents."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import te, tirx

from programs import conv2d, depthwise_conv2d, elementwise, kernel, matmul, pool, softmax
from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.schedule import (
    IllegalScheduleError,
    Scheduled,
    Space,
    Trace,
    default_traces,
    tile_roles,
)
from tunebank.schedule.reference import output_positions, reference_module

KERNELS: dict[str, Any] = {
    "conv": lambda: conv2d(size=14, cin=32, cout=64, epilogue=["bias", "relu"]),
    "conv with a skip": lambda: conv2d(size=8, cin=16, cout=24, epilogue=["bias", "add", "relu"]),
    "conv of primes": lambda: conv2d(size=13, cin=7, cout=17, epilogue=["bias", "relu"]),
    "conv 1x1": lambda: conv2d(size=7, cin=64, cout=96, window=1),
    "strided conv": lambda: conv2d(size=15, cin=3, cout=32, stride=2, epilogue=["relu"]),
    "dilated conv": lambda: conv2d(size=9, dilation=2),
    "conv in NCHW": lambda: conv2d(size=8, layout="NCHW", epilogue=["relu"]),
    "depthwise": lambda: depthwise_conv2d(size=14, channels=48),
    "depthwise of primes": lambda: depthwise_conv2d(size=11, channels=19),
    "matmul": lambda: matmul(m=64, n=96, k=128),
    "matmul of primes": lambda: matmul(m=31, n=97, k=101, epilogue=["bias"]),
    "matmul and a choice": lambda: matmul(m=16, n=24, k=32, epilogue=["choice"]),
    "one row": lambda: matmul(m=1, n=1000, k=512, epilogue=["bias"]),
    "one column": lambda: matmul(m=128, n=1, k=64),
    "softmax": lambda: softmax(rows=12, columns=100),
    "softmax of primes": lambda: softmax(rows=7, columns=1009),
    "max pool": lambda: pool(size=16, channels=24),
    "mean of all": lambda: pool(size=7, channels=64, window=7, how="sum"),
    "elementwise": lambda: elementwise(shape=(1, 14, 14, 30)),
    "vector of a prime": lambda: elementwise(shape=(1009,)),
    "one number": lambda: elementwise(shape=(1,)),
}
TINY = [
    "conv of primes",
    "conv with a skip",
    "depthwise of primes",
    "matmul of primes",
    "softmax",
    "matmul and a choice",
]


def legal_defaults(space: Space) -> list[Scheduled]:
    legal = []
    for trace in default_traces(space):
        try:
            legal.append(space.apply(trace))
        except IllegalScheduleError:
            continue
    return legal


@pytest.mark.parametrize("name", KERNELS)
def test_every_kernel_has_a_legal_default(name: str, device: Device) -> None:
    target = kernel(KERNELS[name]())
    legal = legal_defaults(Space(target, device))
    assert legal
    script = legal[0].module.script()
    is_one = all(extent == 1 for extents in target.loop_extents.values() for extent in extents)
    assert is_one or any(mark in script for mark in ("T.parallel", "T.vectorized", "T.unroll"))


@pytest.mark.parametrize("name", KERNELS)
def test_factors_of_a_default_multiply_to_the_extents(name: str, device: Device) -> None:
    target = kernel(KERNELS[name]())
    for scheduled in legal_defaults(Space(target, device)):
        for index, role in tile_roles(scheduled.trace, target.loop_extents).items():
            factors = scheduled.trace.decisions[index]
            assert np.prod(factors) == role.extent
            assert len(factors) == role.levels


@pytest.mark.parametrize("name", TINY)
def test_default_and_reference_compute_the_kernel(name: str, device: Device) -> None:
    target = kernel(KERNELS[name]())
    expected = results(target, target.module, device)
    for module in (
        reference_module(target),
        *(scheduled.module for scheduled in legal_defaults(Space(target, device))),
    ):
        for ours, theirs in zip(results(target, module, device), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def results(target: Kernel, module: Any, device: Device) -> list[np.ndarray]:
    program = tirx.build(module, target=device.tvm_target())
    rng = np.random.default_rng(0)
    arrays = [
        tvm.runtime.tensor(rng.random([int(e) for e in param.shape], np.float32) - 0.5)
        for param in target.func.params
    ]
    program["main"](*arrays)
    return [arrays[position].numpy() for position in output_positions(target)]


def test_a_choice_beside_a_reduction_leaves_it_sketches(device: Device) -> None:
    assert Space(kernel(matmul(epilogue=["choice"])), device).sketches


def test_what_is_too_much_once_inlined_has_no_sketches(device: Device) -> None:
    def after(last: Any) -> Any:
        return te.compute((16, 16), lambda i, j: tirx.Select(i < 8, last[i, j], last[j, i]))

    x = te.placeholder((16, 16), name="x")
    values = list(itertools.accumulate(range(12), lambda last, _: after(last), initial=x))
    few = kernel(te.create_prim_func([x, values[4]]))
    many = kernel(te.create_prim_func([x, values[12]]))
    assert (few.inlined_size, many.inlined_size) == ((30, 15), (8190, 4095))
    assert Space(few, device).sketches
    assert not Space(many, device).sketches


def test_outputs_are_the_last_parameters() -> None:
    assert output_positions(kernel(conv2d(epilogue=["bias", "relu"]))) == [3]
    assert output_positions(kernel(softmax())) == [1]


def test_what_is_applied_can_be_applied_again(device: Device) -> None:
    space = Space(kernel(conv2d(epilogue=["relu"])), device)
    for sketch in space.sketches:
        first = space.apply(sketch)
        second = space.apply(Trace.from_text(first.trace.text))
        assert second.trace == first.trace
        assert second.module.script() == first.module.script()


def test_the_trace_of_the_result_says_what_was_really_applied(device: Device) -> None:
    target = kernel(matmul())
    space = Space(target, device)
    roles = tile_roles(space.sketches[0], target.loop_extents)
    index, role = next((i, r) for i, r in roles.items() if r.extent == 16 and r.levels == 4)
    applied = space.apply(space.sketches[0].with_decisions({index: [3, 3, 3, 3]}))
    factors = applied.trace.decisions[index]
    assert np.prod(factors) == role.extent
    assert factors != [3, 3, 3, 3]


def test_a_trace_of_another_kernel_is_refused(device: Device) -> None:
    foreign = Space(kernel(softmax()), device).sketches[0]
    with pytest.raises(IllegalScheduleError):
        Space(kernel(matmul()), device).apply(foreign)
    kernels_with_less = kernel(conv2d(window=1))
    with pytest.raises(IllegalScheduleError):
        Space(kernels_with_less, device).apply(
            Space(kernel(conv2d(epilogue=["bias", "relu"])), device).sketches[-1]
        )
