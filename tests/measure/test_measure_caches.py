"""What is in the caches before a run: the first input, written in shares, and nothing else."""

from __future__ import annotations

import json
import statistics
import time

import numpy as np
import pytest
import tvm
from tvm.target import Target

from tunebank import _tvm
from tunebank.device import Device
from tunebank.measure.caches import BEFORE_RUN, Caches


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("shape", [(1, 7, 7, 48), (5,), (1,)], ids=str)
def test_the_first_input_is_written_before_each_run(
    shape: tuple[int, ...], threads: int, device: Device
) -> None:
    rng = np.random.default_rng(0)
    values = [rng.random(shape, np.float32) for _ in range(2)]
    arguments = [tvm.runtime.tensor(value) for value in values]
    caches = Caches(device.target, threads)
    caches.expect(arguments)
    with _tvm.running_on(device.threads):
        tvm.get_global_func(BEFORE_RUN)(*arguments)
    found = [one.numpy() for one in arguments]
    np.testing.assert_array_equal(found[0], -values[0])
    np.testing.assert_array_equal(found[1], values[1])


def test_integers_stay_what_they_are(device: Device) -> None:
    """They may be indices."""
    indices = tvm.runtime.tensor(np.arange(5, dtype=np.int64))
    caches = Caches(device.target, device.threads)
    caches.expect([indices])
    tvm.get_global_func(BEFORE_RUN)(indices)
    np.testing.assert_array_equal(indices.numpy(), np.arange(5))


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_other_arguments_come_from_memory(dtype: str, device: Device) -> None:
    if not _tvm.can_flush_lines(Target(json.loads(device.target))):
        pytest.skip("this CPU flushes line by line")
    first, other = (tvm.runtime.tensor(np.ones(2**19 // n, np.dtype(dtype))) for n in (64, 1))
    caches = Caches(device.target, device.threads)
    caches.expect([first, other])
    lines = _tvm.array_view(other)[:: 64 // np.dtype(dtype).itemsize]

    def seconds(*, flushed: bool) -> float:
        lines.sum()
        if flushed:
            tvm.get_global_func(BEFORE_RUN)(first, other)
        start = time.perf_counter()
        lines.sum()
        return time.perf_counter() - start

    times = [(seconds(flushed=True), seconds(flushed=False)) for _ in range(21)]
    assert statistics.median(cold / warm for cold, warm in times) > 1.5


def test_a_view_shares_memory() -> None:
    tensor = tvm.runtime.tensor(np.arange(12, dtype=np.int16))
    shaped = _tvm.view(tensor, (3, 4))
    np.testing.assert_array_equal(shaped.numpy(), np.arange(12).reshape(3, 4))
    assert _tvm.flat_view(shaped, "uint8").shape == (24,)
    _tvm.array_view(tensor)[0] = 7
    assert shaped.numpy()[0, 0] == 7
