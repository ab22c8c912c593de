"""Where an artifact's time goes."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from networks import write_small_network
from tunebank import api
from tunebank.cli.main import main
from tunebank.device import Device, peak_gflop_per_s
from tunebank.report import PROFILE_COLUMNS, profile_rows
from tunebank.runtime.feed import random_feed
from tunebank.runtime.profile import profile
from tunebank.runtime.session import Session


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("profile")
    model = write_small_network(folder)
    api.compile_model(
        model, folder / "out", banks=["sqlite://"], threads=1, time_budget_seconds=0, verify=False
    )
    return folder / "out"


def test_every_kernel_is_timed_as_often_as_it_is_called(artifact: Path) -> None:
    session = Session(artifact)
    found = profile(session, random_feed(session.manifest.inputs), runs=5)
    by_symbol = {program.symbol: program for program in found.programs}
    for entry in session.manifest.kernels:
        if entry.gflop > 1e-5:  # those that only reshape are not called
            assert by_symbol[entry.symbol].calls == entry.weight
    assert found.run_us > 0
    times = [program.total_us for program in found.programs]
    assert times == sorted(times, reverse=True)
    assert all(time > 0 for time in times)


def test_after_it_nothing_is_watched(artifact: Path) -> None:
    session, calls = Session(artifact), []

    def on_call(*call: object) -> int:
        calls.append(call)
        return 0

    feed = random_feed(session.manifest.inputs)
    with session.instrumented(on_call):
        session.run(None, feed)
    seen = len(calls)
    session.run(None, feed)
    assert len(calls) == seen > 0


def test_rates_follow_from_the_times(artifact: Path) -> None:
    data = api.profile_artifact(artifact).to_json()
    total = sum(kernel["total_us"] for kernel in data["kernels"])
    assert data["run_us"] == pytest.approx(total + data["between_us"])
    conv = next(kernel for kernel in data["kernels"] if kernel["name"].startswith("conv2d"))
    each = conv["total_us"] / conv["calls"]
    assert conv["gflop_per_s"] == pytest.approx(conv["gflop"] / each * 1e6)
    assert conv["gflop_per_s"] < 1.5 * data["peak_gflop_per_s"]
    rows = profile_rows(data)
    assert all(len(row) == len(PROFILE_COLUMNS) for row in rows)
    assert rows[-1][0] == "(between kernels)"


def test_the_command_shows_it(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", str(artifact), "--profile", "--json"])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["kernels"]


def test_the_peak_is_measured_once(device: Device) -> None:
    peak = peak_gflop_per_s(device)
    # One multiply-add unit of the vector's width at 1 GHz; no CPU has ten at 6 GHz.
    assert 2 * device.vector_lanes * 0.5 < peak < 2 * device.vector_lanes * 60
    start = time.perf_counter()
    assert peak_gflop_per_s(device) == peak
    assert time.perf_counter() - start < 0.01
