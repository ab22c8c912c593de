"""Donors that MetaSchedule tuned: 28 records of 4 kernels of ResNet-18."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from tunebank.bank import Bank, SqlBank, import_records

ASSETS = Path(__file__).parent.parent / "assets"


@pytest.fixture(scope="session")
def resnet18_bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    folder = tmp_path_factory.mktemp("logs")
    for packed in (ASSETS / "metaschedule_resnet18").glob("*.gz"):
        (folder / packed.stem).write_bytes(gzip.decompress(packed.read_bytes()))
    bank = SqlBank("sqlite://")
    assert import_records(bank, f"metaschedule:{folder}", source="resnet18").new == 28
    return bank
