"""MetaSchedule as it comes: its own builder, runner, task scheduler and settings, for a given time.

It runs in a process of its own, started as `python -m tunebank.lab.stock FOLDER THREADS`, and is
ended when its time is over. One thing is repaired, without which nothing is ever built: each of its
workers imports TVM's intrinsics of all GPUs for longer than its build timeout. It writes nothing
down before it has measured 64 schedules of every kernel, some 45 s each on two cores: with less
time than that it has found nothing.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tunebank import _tvm
from tunebank._processes import environment, follow_parent
from tunebank.bank import Record
from tunebank.bank.metaschedule import read_metaschedule
from tunebank.device import Device
from tunebank.errors import MeasurementError
from tunebank.kernel import Kernel

SOURCE = "stock"
_KERNELS = "kernels.json"
_LOG = "log.txt"
_RECORDS = "database_tuning_record.json"
_POLL_SECONDS = 1.0
_ENDLESS = 10**6


def stock_schedule(
    kernels: Sequence[Kernel],
    device: Device,
    folder: Path,
    *,
    seconds: float,
    report: Callable[[str], None] = lambda text: None,
) -> dict[str, list[Record]]:
    """What MetaSchedule finds in a given time: by kernel key its records, fastest first.

    Args:
        kernels: a model's kernels; only those with a reduction are tuned.
        device: what to tune for.
        folder: an empty folder for its database.
        seconds: how long it may run, its start included.
        report: called with a line now and then.
    """
    tasks = [kernel for kernel in kernels if kernel.anchor is not None]
    about = [{"ir": kernel.ir, "weight": kernel.weight} for kernel in tasks]
    (folder / _KERNELS).write_text(json.dumps({"target": device.target, "tasks": about}))
    command = [sys.executable, "-m", __name__, str(folder), str(device.threads)]
    with (folder / _LOG).open("wb") as log:
        process = subprocess.Popen(  # noqa: S603  this very program
            command, stdout=log, stderr=log, env=environment(), start_new_session=True
        )
    end = time.monotonic() + seconds
    try:
        while process.poll() is None and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)
            report(f"stock MetaSchedule: {_lines(folder / _RECORDS)} trials")
        if process.poll():
            last = (folder / _LOG).read_text(errors="replace").strip().splitlines()[-1:]
            raise MeasurementError(f"stock MetaSchedule ended by itself: {' '.join(last)}")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return _found(folder, device)


def _found(folder: Path, device: Device) -> dict[str, list[Record]]:
    if not _lines(folder / _RECORDS):
        return {}
    records = read_metaschedule(
        folder,
        source=SOURCE,
        device=device.fingerprint,
        tvm_version=version("apache-tvm"),
        on_invalid=lambda error: None,  # a line that was being written when it was ended
    )
    found: dict[str, list[Record]] = {}
    for record in records:
        if record.latency_us is not None:
            found.setdefault(record.kernel_key, []).append(record)
    for own in found.values():
        own.sort(key=lambda record: record.latency_us or 0.0)
    return found


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _prepare() -> None:
    """What each of its workers does first."""
    _tvm.prepare(threads=int(os.environ["TVM_NUM_THREADS"]))


def main(folder: Path, threads: int) -> None:
    """Tunes until it is ended."""
    follow_parent()
    os.environ["TVM_NUM_THREADS"] = str(threads)
    _tvm.prepare(threads=threads)
    from tvm.s_tir import meta_schedule
    from tvm.target import Target

    wanted: dict[str, Any] = json.loads((folder / _KERNELS).read_text())
    target = Target(json.loads(wanted["target"]))
    kernels = [Kernel.from_ir(one["ir"], name="") for one in wanted["tasks"]]
    tasks = [
        meta_schedule.TuneContext(
            kernel.module,
            target=target,
            space_generator="post-order-apply",
            search_strategy="evolutionary",
            task_name=f"kernel{index}",
            num_threads=threads,
        )
        for index, kernel in enumerate(kernels)
    ]
    meta_schedule.tune_tasks(
        tasks=tasks,
        task_weights=[float(one["weight"]) for one in wanted["tasks"]],
        work_dir=str(folder),
        max_trials_global=_ENDLESS,
        builder=meta_schedule.builder.LocalBuilder(max_workers=threads, initializer=_prepare),
        runner=meta_schedule.runner.LocalRunner(initializer=_prepare),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
