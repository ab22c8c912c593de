"""Orders of schedules compared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from programs import kernel, matmul
from tunebank.bank import SqlBank
from tunebank.cli.main import main
from tunebank.device import Device
from tunebank.lab.ranking import ORDERS, standing
from tunebank.measure.fake import FakeMeasurer
from tunebank.search import TuneSettings, tune
from tunebank.transfer.pretraining import kernel_trials


def test_a_perfect_order_and_its_reverse() -> None:
    octaves = [np.linspace(0.0, 3.0, 24, dtype=np.float32) for _ in range(3)]
    perfect = standing(octaves, octaves)
    assert (perfect.regret_of_first, perfect.regret_of_five) == (1.0, 1.0)
    assert perfect.recall_of_eight == 1.0
    worst = standing([-one for one in octaves], octaves)
    assert worst.regret_of_first == pytest.approx(8.0)
    assert worst.recall_of_eight == 0.0


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory, device: Device) -> Path:
    """Trials of two models; the measurer's latencies depend on the schedule alone."""
    path = tmp_path_factory.mktemp("ranking") / "bank.db"
    with SqlBank(str(path)) as made:
        for source, size in (("resnet18", 256), ("googlenet", 384)):
            kernels = [kernel(matmul(m=64, n=size, k=256, epilogue=["bias"]))]
            settings = TuneSettings(source, trials_per_kernel=32)
            tune(kernels, made, device, FakeMeasurer(), settings)
    return path


def test_trials_come_in_an_order_that_tells_nothing(bank: Path, device: Device) -> None:
    """A bank gives the fastest first; what an order takes for equal would stay so."""
    with SqlBank(str(bank)) as opened:
        first, second = kernel_trials(opened.find())
    assert {first.sources, second.sources} == {frozenset({"resnet18"}), frozenset({"googlenet"})}
    for one in (first, second):
        assert one.features.shape[0] == len(one.estimate) == len(one.octaves) >= 24
        assert one.octaves.min() == 0.0
        assert len(np.unique(one.features, axis=0)) > 1
    octaves = [first.octaves, second.octaves]
    indifferent = standing([np.zeros_like(one) for one in octaves], octaves)
    assert indifferent.regret_of_first > 1.0
    assert indifferent.recall_of_eight < 1.0


def test_the_command(bank: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["lab", "ranking", "--bank", str(bank), "--threads", "1", "--json"])
    assert stopped.value.code == 0
    models = json.loads(capsys.readouterr().out)["models"]
    assert [one["model"] for one in models] == ["resnet18", "googlenet"]
    for one in models:
        assert set(one["orders"]) == set(ORDERS)
        assert one["trained_on"] >= 24
        assert all(order["regret_of_first"] >= 1.0 for order in one["orders"].values())


def test_a_bank_without_trials(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    SqlBank(str(tmp_path / "empty.db")).close()
    with pytest.raises(SystemExit) as stopped:
        main(["lab", "ranking", "--bank", str(tmp_path / "empty.db")])
    assert stopped.value.code == 2
    assert "lab tune" in capsys.readouterr().err
