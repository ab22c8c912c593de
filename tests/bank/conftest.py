"""Banks to test with."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bank_records import ASSETS

from tunebank.bank import Bank, BankChain, SqlBank


@pytest.fixture(params=["file", "memory", "chain"])
def bank(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bank]:
    """Each kind of bank, empty."""
    makers: dict[str, Callable[[], Bank]] = {
        "file": lambda: SqlBank(str(tmp_path / "bank.db")),
        "memory": lambda: SqlBank("sqlite://"),
        "chain": lambda: BankChain([SqlBank("sqlite://"), SqlBank(str(tmp_path / "second.db"))]),
    }
    made = makers[request.param]()
    yield made
    made.close()


@pytest.fixture
def metaschedule(tmp_path: Path) -> Path:
    """A MetaSchedule database: 4 kernels, 28 records of which one failed."""
    folder = tmp_path / "resnet18"
    folder.mkdir()
    for packed in (ASSETS / "metaschedule_resnet18").glob("*.gz"):
        (folder / packed.stem).write_bytes(gzip.decompress(packed.read_bytes()))
    return folder
