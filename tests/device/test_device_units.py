"""What a target's cores can do, by its name."""

from __future__ import annotations

import json

import pytest

from tunebank.device import detect_device


@pytest.mark.parametrize(
    ("mcpu", "lanes", "multiply_adds"),
    [("znver4", 16, 16), ("emeraldrapids", 16, 32), ("skylake-avx512", 16, 32), ("haswell", 8, 16)],
)
def test_multiply_adds_in_a_cycle(mcpu: str, lanes: int, multiply_adds: int) -> None:
    """Two vectors of them, but where a vector of 512 bits takes two cycles."""
    device = detect_device(json.dumps({"kind": "llvm", "mcpu": mcpu}), threads=1)
    assert (device.vector_lanes, device.multiply_adds) == (lanes, multiply_adds)
