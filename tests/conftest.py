"""What all tests share: the device, and this folder's modules (`programs`) on the path."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tunebank.device import Device


@pytest.fixture(scope="session")
def device() -> Device:
    """This machine's CPU with one thread."""
    from tunebank.device import detect_device

    return detect_device(threads=1)
