"""Attention as one kernel: what is such a kernel, and its numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from networks import write_attention_network
from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.measure import LocalMeasurer
from tunebank.model import Model, joined, load_model
from tunebank.schedule import IllegalScheduleError, Space, Trace, default_schedule
from tunebank.schedule.attention import (
    KIND,
    Parameters,
    as_attention,
    attention_traces,
    fits,
    is_worthwhile,
)
from tunebank.schedule.trace import one_step
from tunebank.search.joining import worthwhile_joins


def joint_model(path: Path, device: Device) -> Model:
    model = load_model(path, device)
    return joined(model, worthwhile_joins(model, device, winograd=True))


def attentions(path: Path, device: Device) -> list[Kernel]:
    return [one for one in joint_model(path, device).kernels if as_attention(one) is not None]


def joint_kernel(path: Path, device: Device) -> Kernel:
    """The only one."""
    (found,) = attentions(path, device)
    return found


def check(kernel: Kernel, device: Device, measurer: LocalMeasurer, *given: int) -> None:
    """Measures the kernel under a schedule, and its numbers against the reference schedule."""
    found = as_attention(kernel)
    assert found is not None
    one = Parameters(*given)
    assert fits(found, device, one)
    (result,) = measurer.measure([Space(kernel, device).apply(one.trace)], best_us={})
    assert (result.status, result.error) == ("ok", None)
    assert result.checked


KINDS: dict[str, dict[str, Any]] = {
    "plain": {"scale": False},
    "scaled": {},
    "masked": {"mask": True},
    "clipped": {"spread": "Relu"},
    "of two texts": {"batch": 2, "heads": 2},
    "of one head": {"heads": 1},
    "of whole vectors": {"length": 64, "depth": 32},
    "of a page": {"length": 256, "depth": 16},
    "longer than the stack": {"heads": 1, "length": 2100, "depth": 16},
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("given", [(14, 1, 3, 1), (5, 1, 6, 2)], ids=str)
def test_the_numbers_are_the_kernels(
    name: str,
    given: tuple[int, ...],
    tmp_path: Path,
    device: Device,
    measurer: LocalMeasurer,
) -> None:
    check(
        joint_kernel(write_attention_network(tmp_path, **KINDS[name]), device),
        device,
        measurer,
        *given,
    )


@pytest.mark.parametrize("given", [(6, 2, 37, 37), (7, 2, 1, 1), (3, 2, 36, 4)], ids=str)
def test_the_numbers_of_other_tiles(
    given: tuple[int, ...], tmp_path: Path, device: Device, measurer: LocalMeasurer
) -> None:
    kernel = joint_kernel(write_attention_network(tmp_path, depth=2 * device.vector_lanes), device)
    check(kernel, device, measurer, *given)


def test_it_is_the_default(tmp_path: Path, device: Device) -> None:
    kernel = joint_kernel(write_attention_network(tmp_path), device)
    chosen = default_schedule(Space(kernel, device))
    assert chosen is not None
    assert chosen.trace.instructions[0].kind == KIND
    assert is_worthwhile(kernel, device)


def test_three_kernels_become_one(tmp_path: Path, device: Device) -> None:
    path = write_attention_network(tmp_path, mask=True)
    model, together = load_model(path, device), joint_model(path, device)
    assert len(together.kernels) == len(model.kernels) - 2
    assert together.flops == model.flops


@pytest.mark.parametrize(
    "changes",
    [
        {"shared": True},
        {"spread": "CumSum"},
        {"also": "weights"},
        {"also": "scores"},
        {"depth": 3},  # less than a vector
    ],
    ids=str,
)
def test_others_are_left_apart(changes: dict[str, Any], tmp_path: Path, device: Device) -> None:
    model = load_model(write_attention_network(tmp_path, **changes), device)
    assert worthwhile_joins(model, device, winograd=True) == {}


@pytest.mark.parametrize(
    "values",
    [
        (0, 1, 1, 1),
        (14, 0, 1, 1),
        (14, 9, 1, 1),
        (14, 1, 0, 1),
        (14, 1, 99, 1),
        (14, 1, 3, 2),
        (14,),
    ],
)
def test_a_stranger_s_parameters_are_refused(
    values: tuple[int, ...], tmp_path: Path, device: Device
) -> None:
    kernel = joint_kernel(write_attention_network(tmp_path), device)
    with pytest.raises(IllegalScheduleError):
        Space(kernel, device).apply(one_step(KIND, *values))


def test_traces_come_back_from_their_text(tmp_path: Path, device: Device) -> None:
    (first, *_) = attention_traces(joint_kernel(write_attention_network(tmp_path), device), device)
    again = Trace.from_text(first.text)
    assert again.identity == first.identity
    assert Parameters.of(again) == Parameters.of(first)
