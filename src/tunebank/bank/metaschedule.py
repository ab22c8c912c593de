"""MetaSchedule's JSON databases as records: people already own hours of tuning logs.

A database is a folder of two files, one JSON value per line:

    database_workload.json         [hash, program in base64]
    database_tuning_record.json    [workload index, [trace, run seconds, target, arguments]]
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebank import _tvm
from tunebank.bank.record import Record
from tunebank.errors import BankError

if TYPE_CHECKING:
    from tunebank.kernel import Kernel

WORKLOADS = "database_workload.json"
RECORDS = "database_tuning_record.json"
FAILED_SECONDS = 1e10  # what MetaSchedule writes for a build or a run that failed


def _refuse(error: BankError) -> None:
    raise error


def read_metaschedule(
    folder: Path,
    *,
    source: str | None = None,
    device: str = "unknown",
    tvm_version: str = "unknown",
    on_invalid: Callable[[BankError], None] = _refuse,
) -> Iterator[Record]:
    """The records of a MetaSchedule database.

    Args:
        folder: the database.
        source: name of the model that it was tuned for; None takes the folder's name.
        device: fingerprint of the device that it was tuned on.
        tvm_version: version that it was tuned with; the database does not say.
        on_invalid: called for each line that can't be read, which is left out if it returns;
            by default it raises.

    Raises:
        BankError: no such database, or a line that can't be read.
    """
    for name in (WORKLOADS, RECORDS):
        if not (folder / name).is_file():
            raise BankError(f"{folder}: no MetaSchedule database: {name} is missing")
    _tvm.prepare()
    kernels = list(_kernels(folder / WORKLOADS, on_invalid))
    created = datetime.fromtimestamp((folder / RECORDS).stat().st_mtime, timezone.utc)
    about = {
        "source": source or folder.resolve().name,
        "device": device,
        "tvm_version": tvm_version,
        "created_at": created.isoformat(timespec="seconds"),
    }
    for where, text in _lines(folder / RECORDS):
        try:
            index, (trace, run_seconds, target, _) = _parse(where, text)
            yield _record(_at(kernels, index), trace, run_seconds, target, about)
        except BankError as error:
            on_invalid(error)
        except (ValueError, TypeError, IndexError, AttributeError) as error:
            on_invalid(BankError(f"{where}: not a tuning record: {error}"))


def _kernels(path: Path, on_invalid: Callable[[BankError], None]) -> Iterator[Kernel | None]:
    """The kernels in file order; None holds the place of one that can't be read."""
    for where, text in _lines(path):
        try:
            kernel = _kernel(where, _parse(where, text))
        except BankError as error:
            on_invalid(error)
            yield None
        else:
            yield kernel


def _at(kernels: list[Kernel | None], index: int) -> Kernel:
    # A negative index would quietly name another workload.
    kernel = kernels[index] if 0 <= index < len(kernels) else None
    if kernel is None:
        raise ValueError(f"workload {index} is missing")
    return kernel


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """The lines that are not empty, each after the place that an error names."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for number, text in enumerate(file, start=1):
                if text.strip():
                    yield f"{path}, line {number}", text
    except OSError as error:
        raise BankError(f"{path}: can't be read: {error.strerror}") from error


def _parse(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BankError(
            f"{where}: not JSON, or cut off; leave such lines out with --skip-invalid"
        ) from error


def _kernel(where: str, value: Any) -> Kernel:
    from tvm.s_tir.meta_schedule.database import Workload

    from tunebank.kernel import Kernel

    try:
        (function,) = (f for _, f in Workload.from_json(value).mod.functions_items())
        return Kernel.from_prim_func(function, name="")
    except Exception as error:  # TVM's decoder raises whatever its C++ side threw
        raise BankError(f"{where}: not a workload") from error


def _record(
    kernel: Kernel,
    trace: Any,
    run_seconds: list[Any] | None,
    target: dict[str, Any],
    about: dict[str, str],
) -> Record:
    from tunebank.schedule.trace import canonical_trace

    seconds = [float(one) for one in run_seconds or ()]
    failed = not seconds or max(seconds) >= FAILED_SECONDS
    samples_us = () if failed else tuple(1e6 * one for one in seconds)
    kept = {name: value for name, value in target.items() if name not in ("keys", "tag")}
    return Record(
        kernel_key=kernel.key,
        class_key=kernel.class_key,
        anchor_key=kernel.anchor_key,
        kernel_name="_".join(kernel.blocks[1:]),
        kernel_ir=kernel.ir,
        flops=kernel.flops,
        trace=canonical_trace(trace, kernel.blocks),
        status="run_failed" if failed else "ok",
        latency_us=None if failed else statistics.median(samples_us),
        samples_us=samples_us,
        origin="import",
        target=json.dumps(kept, sort_keys=True, separators=(",", ":")),
        threads=int(target.get("num-cores", 1)),
        **about,
        error="marked as failed in the MetaSchedule database" if failed else None,
    )
