"""Adapted schedules: real donors on kernels of other extents, all of them legal."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from programs import conv2d, kernel, matmul
from tunebank.bank import Bank
from tunebank.device import Device, detect_device
from tunebank.kernel import Kernel
from tunebank.schedule import Space, Trace, tile_roles
from tunebank.transfer import adapt, match, rank

extents = st.integers(1, 80) | st.sampled_from([97, 128, 192, 256, 1000, 1009])
quick = settings(max_examples=25, deadline=None)

CONVOLUTIONS: dict[str, dict[str, Any]] = {
    "exact": {},
    "larger": {"size": 28, "cin": 128, "cout": 256},
    "of primes": {"size": 13, "cin": 17, "cout": 31},
    "one channel": {"size": 9, "cin": 1, "cout": 8},
    "strided": {"size": 14, "cin": 64, "cout": 96, "stride": 2},
    "1x1": {"size": 14, "cin": 96, "cout": 64, "window": 1},
    "other epilogue": {"size": 10, "cin": 24, "cout": 40, "epilogue": ["wide_bias", "add", "relu"]},
    "no epilogue": {"size": 10, "cin": 24, "cout": 40, "epilogue": []},
}


def convolution(**changes: Any) -> Kernel:
    options = {"size": 7, "cin": 512, "cout": 512, "epilogue": ["wide_bias", "relu"], **changes}
    return kernel(conv2d(**options).with_attr("layout_free_buffers", [1, 2]))


def dense(m: int, n: int, k: int) -> Kernel:
    func = matmul(m=m, n=n, k=k, epilogue=["bias"])
    return kernel(func.with_attr("layout_free_buffers", [1, 2]))


def assert_tiles_fit(trace: Trace, target: Kernel) -> int:
    """Every tiling's factors multiply to the target's extent; returns how many there are."""
    roles = tile_roles(trace, target.loop_extents)
    for index, role in roles.items():
        factors = trace.decisions[index]
        assert math.prod(factors) == role.extent
        assert len(factors) == role.levels
        assert factors[-1] <= role.innermost_limit
    return len(roles)


@quick
@given(m=st.integers(1, 40), n=extents, k=extents)
def test_tiles_of_any_dense_layer_fit(
    resnet18_bank: Bank, device: Device, m: int, n: int, k: int
) -> None:
    target = dense(m, n, k)
    donors = match(target, resnet18_bank)
    assert {donor.level for donor in donors} == {
        "exact" if (m, n, k) == (1, 1000, 512) else "class"
    }
    for donor in donors:
        variants = adapt(donor, target, [], device)
        assert variants
        own = [trace for trace in variants if trace.text != donor.record.trace]
        assert all(assert_tiles_fit(trace, target) == 3 for trace in own)


@quick
@given(size=st.integers(1, 60), cin=extents, cout=extents, window=st.sampled_from([2, 3, 5]))
def test_tiles_of_any_convolution_fit(
    resnet18_bank: Bank, device: Device, size: int, cin: int, cout: int, window: int
) -> None:
    target = convolution(size=size + window, cin=cin, cout=cout, window=window)
    for donor in match(target, resnet18_bank):
        for trace in adapt(donor, target, [], device):
            assert assert_tiles_fit(trace, target) == 7


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_all_variants_are_legal(name: str, resnet18_bank: Bank, device: Device) -> None:
    target = convolution(**CONVOLUTIONS[name])
    space = Space(target, device)
    donors = match(target, resnet18_bank)
    assert donors
    for donor in donors:
        variants = adapt(donor, target, space.sketches, device)
        assert len(variants) >= 2
        for trace in variants:
            assert assert_tiles_fit(trace, target) == 7
            applied = space.apply(trace)
            given = {i: trace.decisions[i] for i in tile_roles(trace, target.loop_extents)}
            taken = {i: applied.trace.decisions[i] for i in given}
            assert taken == given, "TVM replaced nothing"


def test_variants_differ(resnet18_bank: Bank, device: Device) -> None:
    target = convolution(size=28, cin=96, cout=192)
    for donor in match(target, resnet18_bank):
        texts = [trace.text for trace in adapt(donor, target, [], device)]
        assert len(set(texts)) == len(texts)


def test_an_exact_donor_comes_first_as_it_is(resnet18_bank: Bank, device: Device) -> None:
    target = convolution()
    for donor in match(target, resnet18_bank):
        first, *_ = adapt(donor, target, [], device)
        assert first.text == donor.record.trace


def test_a_class_donor_keeps_its_instructions(resnet18_bank: Bank, device: Device) -> None:
    target = convolution(size=14)
    for donor in match(target, resnet18_bank):
        structure = Trace.from_text(donor.record.trace).structure
        assert all(one.structure == structure for one in adapt(donor, target, [], device))


def test_inner_factors_that_divide_survive(resnet18_bank: Bank, device: Device) -> None:
    """All extents are multiples of the donor's: what is inside stays as it was."""
    target = convolution(size=14, cin=1024, cout=1024)
    for donor in match(target, resnet18_bank):
        nearest = adapt(donor, target, [], device)[0]
        before = Trace.from_text(donor.record.trace).decisions
        for index, role in tile_roles(nearest, target.loop_extents).items():
            if role.extent == math.prod(before[index]):
                assert nearest.decisions[index] == before[index]
            else:
                assert nearest.decisions[index][1:] == before[index][1:]


def test_an_anchor_donor_takes_the_sketches_of_the_target(
    resnet18_bank: Bank, device: Device
) -> None:
    target = convolution(**CONVOLUTIONS["other epilogue"])
    space = Space(target, device)
    structures = {sketch.structure for sketch in space.sketches}
    for donor in match(target, resnet18_bank):
        assert donor.level == "anchor"
        variants = adapt(donor, target, space.sketches, device)
        assert {trace.structure for trace in variants} <= structures
        assert adapt(donor, target, [], device) == [], "no sketch, no variant"


@pytest.mark.parametrize("name", ["exact", "larger", "strided"])
def test_the_order_is_the_same_every_time(name: str, resnet18_bank: Bank, device: Device) -> None:
    target = convolution(**CONVOLUTIONS[name])
    sketches = Space(target, device).sketches
    donors = match(target, resnet18_bank)
    first = rank(target, donors, sketches, device)
    again = rank(target, donors[::-1], Space(target, device).sketches, device)
    assert [one.trace.text for one in first] == [one.trace.text for one in again]
    assert [one.cost for one in first] == [one.cost for one in again]
    assert [one.cost for one in first] == sorted(one.cost for one in first)
    assert all(one.donor is not None for one in first)
    assert first


def test_of_two_equal_donors_the_better_standing_comes_first(
    resnet18_bank: Bank, device: Device
) -> None:
    target = convolution(size=14)
    best, *_, worst = match(target, resnet18_bank)
    assert best.standing == 1.0 > worst.standing
    costs = {
        donor.standing: min(one.cost for one in rank(target, [donor], [], device))
        for donor in (best, type(best)(best.record, best.level, worst.standing))
    }
    assert costs[1.0] < costs[worst.standing]


def test_of_two_equal_donors_that_of_the_more_alike_machine_comes_first(
    resnet18_bank: Bank,
) -> None:
    device = detect_device('{"kind":"llvm","mcpu":"icelake-server"}', threads=2)
    target = convolution(size=14)
    donor = match(target, resnet18_bank)[0]
    costs = [
        min(
            one.cost
            for one in rank(
                target,
                [replace(donor, record=replace(donor.record, target=json.dumps(config)))],
                [],
                device,
            )
        )
        for config in (
            {"kind": "llvm", "mcpu": "sapphirerapids", "num-cores": 8},
            {"kind": "llvm", "mcpu": "znver4", "num-cores": 2},  # half the multiply-adds
            {"kind": "llvm", "mcpu": "core-avx2", "num-cores": 2},  # half the vector
        )
    ]
    assert costs == sorted(set(costs))


def test_without_donors_there_is_no_candidate(device: Device) -> None:
    assert rank(convolution(), [], Space(convolution(), device).sketches, device) == []
