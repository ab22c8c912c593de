"""Object files of tensor programs, made by worker processes side by side.

Each program has a file of its own, named by its content and kept as long as the workers live: a
plan that differs from an earlier one in a few kernels is built quickly. And a program that TVM
crashes on, which now and then happens, takes no other with it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from tvm import ir

from tunebank.errors import TargetError
from tunebank.measure.dispatch import Task, serve
from tunebank.measure.measurement import Measurement, Status
from tunebank.measure.pool import WorkerPool, WorkerProcess
from tunebank.measure.protocol import Message

_TIMEOUT_SECONDS = 120.0


@dataclass
class Objects:
    """What came of building.

    Attributes:
        files: object files; they are the workers', and go with them.
        failures: by name of a program that can't be built, what went wrong.
    """

    files: list[Path] = field(default_factory=list)
    failures: dict[str, Measurement] = field(default_factory=dict)


def build_objects(kernels: ir.IRModule, target: str, workers: WorkerPool) -> Objects:
    """Builds tensor programs.

    Args:
        kernels: the programs.
        target: canonical JSON text of the TVM target.
        workers: who builds.

    Raises:
        TargetError: not one of several programs can be built for the target.
    """
    result = Objects()
    tasks = []
    for var, func in kernels.functions_items():
        name = str(var.name_hint)
        text = str(ir.save_json(ir.IRModule({name: func}, attrs=kernels.attrs)))
        digest = hashlib.sha256(f"{target}\0{text}".encode()).hexdigest()
        file = workers.folder / f"{digest}.o"
        if file.exists():
            result.files.append(file)
        else:
            tasks.append((len(text), _task(name, text, target, file, result)))
    tasks.sort(key=lambda pair: -pair[0])  # long ones last would leave workers idle
    serve(workers.workers, [task for _, task in tasks])
    if len(result.failures) > 1 and not result.files:
        reason = next(iter(result.failures.values())).error or ""
        raise TargetError(f"can't make code for this target: {reason[:300]}")
    return result


def _task(name: str, text: str, target: str, file: Path, result: Objects) -> Task:
    partial = file.with_suffix(".partial.o")  # what a killed worker leaves is no object

    def request() -> Message:
        return {"op": "object", "module": text, "target": target, "file": str(partial)}

    def keep(_: WorkerProcess, __: Message) -> None:
        partial.replace(file)
        result.files.append(file)

    def fail(status: Status, reason: str) -> None:
        result.failures[name] = Measurement(status, error=reason)

    return Task(request, keep, fail, "build_failed", _TIMEOUT_SECONDS)
