"""An artifact written whole or not at all.

It is built in a hidden folder beside its place, looked at there, flushed to the disk, and only
then renamed. What stood in the place is replaced if it is an artifact, never otherwise.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from tunebank._version import __version__
from tunebank.build.compile import build
from tunebank.build.place import symbol_of
from tunebank.device import Device
from tunebank.errors import UsageError
from tunebank.measure.pool import WorkerPool
from tunebank.model import Model, ModelFunction
from tunebank.runtime import is_artifact
from tunebank.runtime.manifest import (
    MANIFEST_NAME,
    Function,
    KernelEntry,
    Manifest,
    Part,
    SearchSummary,
    Tensor,
    Versions,
    sha256_of,
)
from tunebank.schedule.winograd import error_growth
from tunebank.search import Choice, Plan

_PROGRAM = "program.vm"

_LLVM_FEATURES = {
    "avx": "avx",
    "avx2": "avx2",
    "fma": "fma",
    "avx512f": "avx512f",
    "avx512bw": "avx512bw",
    "avx512_vnni": "avx512vnni",
    "avx512_bf16": "avx512bf16",
}
"""By the name that Linux gives a CPU feature, LLVM's name of it."""

Inspect = Callable[[Path, Manifest], Manifest]


def check_output(path: Path) -> None:
    """Checks that an artifact can be written to a path; call it before any work.

    Raises:
        UsageError: something else is there, or the place can't be written to.
    """
    if path.is_dir() and not is_artifact(path) and any(path.iterdir()):
        raise UsageError(f"{path}: is a folder but no artifact, and is left alone; give another -o")
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path}: is a file; give the name of a folder with -o")
    parent = path.absolute().parent
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    try:
        # Permissions don't tell it all: a file system may be read-only, or full.
        Path(tempfile.mkdtemp(prefix=".tunebank-", dir=parent)).rmdir()
    except OSError as error:
        raise UsageError(
            f"{path}: can't be written: {error.strerror or error}; give another folder with -o"
        ) from error


def write_artifact(
    path: Path,
    model: Model,
    plan: Plan,
    device: Device,
    *,
    workers: WorkerPool | None = None,
    budget_seconds: float = 0.0,
    report: Callable[[str], None] = lambda text: None,
    inspect: Inspect = lambda folder, manifest: manifest,
) -> tuple[Plan, Manifest]:
    """Compiles a model under a plan and writes the artifact.

    Args:
        path: its folder; an artifact that is there is replaced.
        model: the model.
        plan: the schedules.
        device: what to compile for.
        workers: processes that make machine code; None starts some.
        budget_seconds: search time that was allowed, for the manifest.
        report: called with a line about each kernel that does not build.
        inspect: looks at the finished draft and completes its manifest; what it raises leaves
            nothing behind.

    Returns:
        the plan that was built (see `Built.plan`), and the manifest.

    Raises:
        UsageError: the place can't be written to, or there is no C compiler.
    """
    check_output(path)
    with _draft(path) as folder:
        library, program = folder / "kernels.so", folder / _PROGRAM
        with _workers(workers, device) as pool:
            built = build(model, plan, device, pool, library=library, report=report)
            built.executable.mod.write_to_file(str(program), "")
            plan = built.plan
        library = _named_by_content(library)
        manifest = Manifest(
            model=model.name,
            model_path=str(model.path.absolute()),
            functions=tuple(_function(model, function) for function in model.functions),
            target=device.target,
            device=device.fingerprint,
            cpu_features=target_features(device),
            threads=device.threads,
            versions=_versions(),
            created_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            library=_part(library),
            program=_part(program),
            verified=None,
            search=_summary(plan, budget_seconds),
            kernels=tuple(kernel_entry(choice) for choice in _heaviest_first(plan)),
        )
        _write_manifest(folder, manifest)
        completed = inspect(folder, manifest)
        _write_manifest(folder, completed)
        _flush(folder)
        _publish(folder, path)
    return plan, completed


@contextmanager
def _workers(given: WorkerPool | None, device: Device) -> Iterator[WorkerPool]:
    if given is not None:
        yield given
        return
    with WorkerPool(workers=device.threads, threads=device.threads) as pool:
        pool.start()
        yield pool


def kernel_entry(choice: Choice) -> KernelEntry:
    """What a manifest says of a kernel."""
    names = ("match", "source", "origin", "record_id", "untuned_us", "latency_us", "candidates")
    counts = ("measured", "invalid", "failed")
    values: dict[str, Any] = {name: getattr(choice, name) for name in (*names, *counts)}
    kernel = choice.kernel
    values["class"] = kernel.class_key
    return KernelEntry(
        name=kernel.name,
        symbol=symbol_of(kernel),
        given_up=tuple(map(str, choice.given_up)),
        error_growth=error_growth(choice.scheduled.trace, kernel) if choice.scheduled else 1.0,
        weight=kernel.weight,
        gflop=kernel.gflop,
        **values,
    )


def target_features(device: Device) -> tuple[str, ...]:
    """CPU features that code for a device may use, as Linux names them."""
    from tvm import get_global_func

    has_feature = get_global_func("target.llvm_cpu_has_feature")
    target = device.tvm_target()
    return tuple(name for name, llvm in _LLVM_FEATURES.items() if has_feature(llvm, target))


def _function(model: Model, function: ModelFunction) -> Function:
    """Names from the file, shapes and data types from the graph."""
    type_ = model.module[function.name].ret_ty
    types = list(type_.fields) if hasattr(type_, "fields") else [type_]
    return Function(
        name=function.name,
        inputs=tuple(Tensor(**vars(spec)) for spec in function.inputs),
        outputs=tuple(
            Tensor(name=name, shape=_extents(one), dtype=str(one.dtype))
            for name, one in zip(function.output_names, types, strict=True)
        ),
    )


def _extents(type_: Any) -> tuple[int | None, ...]:
    if type_.shape is None:
        return (None,) * max(0, int(type_.ndim))
    return tuple(int(e) if hasattr(e, "value") else None for e in type_.shape)


def _heaviest_first(plan: Plan) -> list[Choice]:
    return sorted(plan.choices.values(), key=lambda c: -c.kernel.flops * c.kernel.weight)


def _summary(plan: Plan, budget_seconds: float) -> SearchSummary:
    return SearchSummary(
        budget_seconds=budget_seconds,
        search_seconds=plan.search_seconds,
        measured=plan.measured,
        interrupted=plan.interrupted,
    )


def _versions() -> Versions:
    return Versions(
        tunebank=__version__,
        tvm=metadata.version("apache-tvm"),
        tvm_ffi=metadata.version("apache-tvm-ffi"),
    )


def _named_by_content(library: Path) -> Path:
    """Renames a library so that no other has its name.

    The dynamic linker takes two files of one path for the same, as long as the first is in use:
    an artifact that replaces one would run its kernels.
    """
    name = f"{library.stem}-{sha256_of(library)[:12]}{library.suffix}"
    return library.rename(library.with_name(name))


def _part(path: Path) -> Part:
    return Part(name=path.name, sha256=sha256_of(path), size_bytes=path.stat().st_size)


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    data = manifest.model_dump(mode="json", by_alias=True)
    (folder / MANIFEST_NAME).write_text(json.dumps(data, indent=2, allow_nan=False) + "\n")


@contextmanager
def _draft(path: Path) -> Iterator[Path]:
    """A hidden folder beside the path; gone afterwards, unless it was renamed."""
    parent = path.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=parent))
    try:
        folder.chmod(0o755)  # `mkdtemp` keeps others out
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _flush(folder: Path) -> None:
    """Waits until the folder's files are on the disk."""
    for path in (*folder.iterdir(), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _publish(folder: Path, path: Path) -> None:
    """Renames the draft to its place."""
    check_output(path)  # again: minutes have passed
    if not path.exists():
        folder.rename(path)
        return
    # A folder can't be renamed onto one that has files: the old one steps aside first.
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}-old-", dir=path.absolute().parent))
    try:
        path.rename(aside / "old")
        try:
            folder.rename(path)
        except OSError:
            (aside / "old").rename(path)
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
