"""What all tests share: the device, and this folder's modules (`programs`) on the path."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tunebank.bank import Bank
    from tunebank.device import Device
    from tunebank.measure import LocalMeasurer

# The same examples in every run: a rare corner is found on purpose, with
# `pytest --hypothesis-profile=default`, and not by whoever runs the tests for something else.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")

LOGS = Path(__file__).parent / "assets" / "metaschedule_resnet18"


@pytest.fixture(scope="session")
def device() -> Device:
    """This machine's CPU with one thread."""
    from tunebank.device import detect_device

    return detect_device(threads=1)


@pytest.fixture(scope="module")
def measurer(device: Device) -> Iterator[LocalMeasurer]:
    """It measures for real, with one worker, which the tests of a file share."""
    from tunebank.measure import LocalMeasurer

    made = LocalMeasurer(device, workers=1)
    yield made
    made.close()


@pytest.fixture(scope="session")
def resnet18_bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    """Donors that MetaSchedule tuned: 28 records of 4 kernels of ResNet-18. Not to be written."""
    from tunebank.bank import SqlBank, import_records

    folder = tmp_path_factory.mktemp("logs")
    for packed in LOGS.glob("*.gz"):
        (folder / packed.stem).write_bytes(gzip.decompress(packed.read_bytes()))
    bank = SqlBank("sqlite://")
    assert import_records(bank, f"metaschedule:{folder}", source="resnet18").new == 28
    return bank
