"""What is in the caches before a run: the first input, written in shares."""

from __future__ import annotations

import numpy as np
import pytest
import tvm

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
