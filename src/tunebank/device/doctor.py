"""What would go wrong on this machine, and the fix.

Each check returns a `Check` and raises nothing: a broken machine is what they are for. TVM is
tried in a process of its own, since the worst that a wrong installation does is to end it.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from tunebank import _tvm
from tunebank.device.device import available_cores, cpu_features, cpu_flags, missing_features

Status = Literal["ok", "warn", "fail"]

_TRIAL_SECONDS = 120.0
_OLDEST_PYTHON = (3, 10)
_NEEDED_BYTES, _SPARE_BYTES = 200 * 2**20, 2 * 2**30
_COMPILERS = ("g++", "gcc", "clang++", "clang", "c++", "cc")


@dataclass(frozen=True)
class Check:
    """Outcome of one check.

    Attributes:
        name: what was looked at.
        status: `ok`; `warn`, it works but not at its best; `fail`, it does not work.
        found: what was found.
        fix: what to do about it; "" if nothing.
    """

    name: str
    status: Status
    found: str
    fix: str = ""


def check_machine(*, threads: int | None = None) -> list[Check]:
    """Checks Python, libraries, TVM, processors, compiler and disk."""
    checks = [
        check_python(),
        check_tvm_versions(),
        *(check_library(name) for name in ("onnx", "onnxruntime", "numpy")),
    ]
    checks.extend(check_tvm_works(threads))
    checks.extend([check_threads(), check_thread_variables(), check_features()])
    checks.extend([check_compiler(), check_disk("disk, temporary files", tempfile.gettempdir())])
    return checks


def check_python() -> Check:
    """Python's version."""
    found = platform.python_version()
    if sys.version_info < _OLDEST_PYTHON:
        return Check("Python", "fail", found, "install Python 3.10 or newer")
    return Check("Python", "ok", found)


def check_tvm_versions(version: Callable[[str], str] = metadata.version) -> Check:
    """TVM and its FFI library: the pair must be the one that works."""
    wanted = {"apache-tvm": _tvm.TVM_VERSION, "apache-tvm-ffi": _tvm.TVM_FFI_VERSION}
    fix = "pip install " + " ".join(f"{name}=={number}" for name, number in wanted.items())
    found: dict[str, str] = {}
    for name in wanted:
        try:
            found[name] = version(name)
        except metadata.PackageNotFoundError:
            return Check("TVM", "fail", f"{name} is not installed", fix)
    text = ", ".join(f"{name} {number}" for name, number in found.items())
    if found == wanted:
        return Check("TVM", "ok", text)
    return Check("TVM", "fail", f"{text}; tunebank is made for another pair", fix)


def check_library(name: str, version: Callable[[str], str] = metadata.version) -> Check:
    """Whether a library is installed, and which."""
    try:
        return Check(name, "ok", version(name))
    except metadata.PackageNotFoundError:
        return Check(name, "fail", "not installed", f"pip install {name}")


def check_tvm_works(
    threads: int | None = None, *, command: tuple[str, ...] | None = None
) -> list[Check]:
    """Builds and runs a program in another process; its target against this CPU's features."""
    name = "TVM builds and runs"
    given = [] if threads is None else [str(threads)]
    argv = [*(command or (sys.executable, "-m", "tunebank.device.trial")), *given]
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    try:
        done = subprocess.run(  # noqa: S603  our own module
            argv,
            capture_output=True,
            timeout=_TRIAL_SECONDS,
            env={**os.environ, "PYTHONPATH": path},
            check=False,
        )
    except (subprocess.TimeoutExpired, OSError) as error:
        return [Check(name, "fail", f"no answer: {error}", "close what else runs, and try again")]
    if done.returncode != 0:
        fix = "install the pinned libraries anew: pip install --force-reinstall tunebank"
        return [Check(name, "fail", _how_it_ended(done), fix)]
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        return [Check(name, "fail", "an answer that is none", "report it, with --json")]
    if not answer["right"]:
        return [Check(name, "fail", "it gives wrong numbers", "give a --target that fits the CPU")]
    return [Check(name, "ok", f"{answer['threads']} threads"), check_target(answer)]


def check_target(answer: Mapping[str, Any]) -> Check:
    """The CPU name that code is generated for, against what the CPU can do."""
    mcpu = str(answer["mcpu"])
    lacking = missing_features(answer["features"])
    if lacking:
        fix = 'name a smaller CPU: --target \'{"kind":"llvm","mcpu":"x86-64-v3"}\''
        return Check("target", "fail", f"{mcpu}, but this CPU lacks {', '.join(lacking)}", fix)
    if mcpu == "generic":
        fix = 'name the CPU: --target \'{"kind":"llvm","mcpu":"…"}\''
        return Check("target", "warn", "generic: LLVM does not know this CPU", fix)
    return Check("target", "ok", f"{mcpu}, {answer['vector_lanes']} float32 in a vector")


def check_threads() -> Check:
    """Threads taken by default, against processors, affinity and container quota."""
    import psutil

    logical = os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else logical
    physical = psutil.cpu_count(logical=False) or logical
    cores = available_cores()
    found = f"{cores} by default: {physical} cores, {logical} processors, {allowed} allowed"
    if cores < min(allowed, physical):
        fix = "raise the container's CPU quota, or keep to this number of threads"
        return Check("threads", "warn", f"{found}, fewer by a CPU quota", fix)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > 0.5 * logical:
        fix = "close what else runs: it disturbs measurements"
        return Check("threads", "warn", f"{found}; load {load:.1f}", fix)
    return Check("threads", "ok", found)


def check_thread_variables(environment: Mapping[str, str] = os.environ) -> Check:
    """Variables that would set the threads behind our back."""
    name = "thread variables"
    given = {
        key: environment[key]
        for key in ("TVM_NUM_THREADS", "OMP_NUM_THREADS", "TVM_BIND_THREADS")
        if key in environment
    }
    if not given:
        return Check(name, "ok", "none set")
    found = ", ".join(f"{key}={value}" for key, value in given.items())
    return Check(name, "warn", found, f"unset {' '.join(given)}, and use --threads")


def check_features() -> Check:
    """Vector units."""
    features = cpu_features()
    found = ", ".join(features) or platform.machine()
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    if is_x86 and cpu_flags() and "avx2" not in features:
        fix = "use a machine with AVX2: the shipped schedules were found with it"
        return Check("CPU features", "warn", f"{found}; no AVX2", fix)
    return Check("CPU features", "ok", found)


def check_compiler(which: Callable[[str], str | None] = shutil.which) -> Check:
    """A compiler, which links the artifact."""
    named = os.environ.get("CXX") or os.environ.get("CC")
    candidates = (named,) if named else _COMPILERS
    for name in candidates:
        if found := which(name):
            return Check("C compiler", "ok", found)
    fix = "install gcc or clang, for example: apt-get install gcc; or set CC"
    return Check("C compiler", "fail", f"none of {', '.join(candidates)}", fix)


def check_disk(name: str, path: str | Path) -> Check:
    """Free space where files go."""
    folder = Path(path)
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    found = f"{free / 1e9:.1f} GB free under {folder}"
    if free < _NEEDED_BYTES:
        return Check(name, "fail", found, "free some space there")
    if free < _SPARE_BYTES:
        return Check(name, "warn", found, "large models need more: free some space there")
    return Check(name, "ok", found)


def _how_it_ended(done: subprocess.CompletedProcess[bytes]) -> str:
    if done.returncode < 0:
        try:
            return f"it crashes: {signal.Signals(-done.returncode).name}"
        except ValueError:
            return f"it crashes: signal {-done.returncode}"
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return " ".join(lines[-1].split())[:200] if lines else f"exit code {done.returncode}"
