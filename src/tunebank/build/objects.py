"""Object files of tensor programs, made by worker processes side by side.

LLVM takes a program at a time, and now and then TVM crashes on one: that ends a worker, and
is known to be that program's fault when it is built once more by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tvm import ir, tirx

from tunebank.errors import TargetError
from tunebank.measure.dispatch import Task, serve
from tunebank.measure.pool import WorkerPool, WorkerProcess
from tunebank.measure.protocol import Message

_PARTS_PER_WORKER = 6
"""Several programs go into one object file, since each file has its overhead; several files per
worker even out their sizes."""
_TIMEOUT_SECONDS = 120.0

_Named = tuple[str, tirx.PrimFunc]


@dataclass
class Objects:
    """What came of building.

    Attributes:
        files: object files.
        failures: by name of a program that can't be built, why.
    """

    files: list[Path] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)


def build_objects(kernels: ir.IRModule, target: str, workers: WorkerPool, folder: Path) -> Objects:
    """Builds tensor programs.

    Args:
        kernels: the programs.
        target: canonical JSON text of the TVM target.
        workers: who builds.
        folder: where the object files go.

    Raises:
        TargetError: not one program can be built for the target.
    """
    functions = [(str(var.name_hint), func) for var, func in kernels.functions_items()]
    parts = _parts(functions, len(workers.workers) * _PARTS_PER_WORKER)
    result, again = Objects(), Objects()
    _build(parts, kernels, target, workers, folder / "part", into=result)
    alone = [[one] for part in parts for one in part if one[0] in result.failures]
    if not alone:
        return result
    _build(alone, kernels, target, workers, folder / "alone", into=again)
    if not result.files and not again.files:
        reason = next(iter(again.failures.values()))
        raise TargetError(f"can't make code for this target: {reason[:300]}")
    return Objects([*result.files, *again.files], again.failures)


def _parts(functions: Iterable[_Named], count: int) -> list[list[_Named]]:
    """The programs in parts of about equal length, by the length of their text."""
    sized = sorted(((len(str(func)), name, func) for name, func in functions), reverse=True)
    parts: list[list[_Named]] = [[] for _ in range(count)]
    sizes = [0] * count
    for size, name, func in sized:
        smallest = sizes.index(min(sizes))
        parts[smallest].append((name, func))
        sizes[smallest] += size
    return [part for part in parts if part]


def _build(
    parts: Sequence[Sequence[_Named]],
    kernels: ir.IRModule,
    target: str,
    workers: WorkerPool,
    stem: Path,
    *,
    into: Objects,
) -> None:
    def task(index: int, part: Sequence[_Named]) -> Task:
        file = stem.with_name(f"{stem.name}{index}.o")

        def request() -> Message:
            module = ir.IRModule(dict(part), attrs=kernels.attrs)
            text = str(ir.save_json(module))
            return {"op": "object", "module": text, "target": target, "file": str(file)}

        def keep(_: WorkerProcess, __: Message) -> None:
            into.files.append(file)

        def fail(_: str, reason: str) -> None:
            into.failures.update({name: reason for name, _ in part})

        return Task(request, keep, fail, "build_failed", _TIMEOUT_SECONDS)

    serve(workers.workers, [task(index, part) for index, part in enumerate(parts)])
