"""One reading process for all tests of models: it takes seconds to start, and none to ask."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest

from tunebank.device import Device
from tunebank.model import Model, Reader, load_model


@pytest.fixture(scope="session")
def reader() -> Iterator[Reader]:
    with Reader(timeout_seconds=60.0) as process:
        yield process


@pytest.fixture(scope="session")
def read(reader: Reader, device: Device) -> Callable[..., Model]:
    """`read(path, input_shapes=..., dims=...)`."""
    return partial(load_model, device=device, reader=reader)
