"""What machine code is made for, and how many threads it runs on."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebank import _tvm
from tunebank.errors import TargetError, UsageError

if TYPE_CHECKING:
    from tvm.target import Target

_FEATURES = ("avx", "avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "amx_tile")
_HALVED = frozenset({"znver4"})
"""CPUs that take two cycles for what others do with a vector of 512 bits in one."""
_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}  # other names of the same


@dataclass(frozen=True)
class Device:
    """A CPU as a compilation target.

    Attributes:
        target: canonical JSON text of the TVM target; `num-cores` is the thread count.
        threads: threads that builds, measurements and the artifact use.
        fingerprint: names the machine that measurements come from: model, features, threads.
        vector_lanes: float32 values in a vector register.
        vector_registers: how many vector registers there are.
    """

    target: str
    threads: int
    fingerprint: str
    vector_lanes: int = 8
    vector_registers: int = 16

    def tvm_target(self) -> Target:
        """The target as TVM's object."""
        from tvm.target import Target

        return Target(json.loads(self.target))

    @property
    def multiplies_bytes(self) -> bool:
        """Whether it has an instruction that adds up products of bytes: AVX-512's VPDPBUSD."""
        return multiplies_bytes(self.target)

    @property
    def multiply_adds(self) -> int:
        """How many float32 values a core multiplies and adds in a cycle: two vectors of them."""
        return _multiply_adds(self.vector_lanes, self.mcpu)

    @property
    def mcpu(self) -> str:
        """LLVM's name of the CPU."""
        return str(json.loads(self.target).get("mcpu", "generic"))


def detect_device(target: str = "auto", *, threads: int | None = None) -> Device:
    """The device for a target.

    Args:
        target: `auto` (this machine's CPU), a JSON object, or a tag that TVM knows.
        threads: threads to use; None takes the physical cores that this process may use.

    Raises:
        TargetError: TVM does not know the target, or it is not a CPU.
        UsageError: more threads than the machine has processors, or fewer than one.
    """
    count = available_cores() if threads is None else threads
    if not 1 <= count <= (os.cpu_count() or 1):
        raise UsageError(f"--threads {count}: this machine has 1 to {os.cpu_count()} to give")
    _tvm.prepare(threads=count)
    config = _target_config(target)
    config["num-cores"] = count
    canonical = json.dumps(config, sort_keys=True, separators=(",", ":"))
    lanes, registers = _vector_unit(config)
    return Device(canonical, count, _fingerprint(config, count), lanes, registers)


def available_cores() -> int:
    """Physical cores that this process may use (affinity and container quota heeded)."""
    import psutil

    logical = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = min(psutil.cpu_count(logical=False) or 1, logical or 1)
    quota = _quota_cores()
    return max(1, min(cores, quota) if quota else cores)


def _quota_cores() -> int | None:
    """Whole cores of the control group's CPU quota, if there is one (Linux, version 2)."""
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if limit == "max" else max(1, int(limit) // int(period))
    except (OSError, ValueError):
        return None


def _target_config(target: str) -> dict[str, Any]:
    from tvm.target import Target

    try:
        if target == "auto":
            found = Target.from_device("cpu")
        elif target.lstrip().startswith("{"):
            given = json.loads(target)
            if "kind" in given:  # TVM says what is missing
                _check_config(given)
            found = Target(given)
        else:
            found = Target(target)
        config = json.loads(str(found))
    except TargetError:
        raise
    except Exception as error:  # TVM raises whatever its C++ side threw
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise TargetError(
            f"unknown target {target!r}: {reason[-1]}; give auto, a tag, or JSON such as "
            '\'{"kind":"llvm","mcpu":"core-avx2"}\''
        ) from error
    _check_config(config)
    kept = ("kind", "mcpu", "mtriple", "mattr", "mabi")
    return {key: config[key] for key in kept if config.get(key) and key != "mtriple"}


def _check_config(config: dict[str, Any]) -> None:
    """Refuses what is no CPU, one of another architecture, and one that LLVM does not know.

    They are refused before a target is made of them: TVM then says on stderr what it misses of a
    GPU, LLVM takes an unknown CPU for a generic one, and an unknown architecture ends the
    process.
    """
    from tvm import get_global_func
    from tvm.target import Target

    if config["kind"] != "llvm":
        raise TargetError(f"the target is of kind {config['kind']!r}; only llvm, a CPU, works")
    machine = platform.machine().lower()
    architecture = str(config.get("mtriple") or machine).partition("-")[0]
    if _ARCHITECTURES.get(architecture, architecture) != _ARCHITECTURES.get(machine, machine):
        raise TargetError(
            f"the target is for {architecture}, this machine is {machine}; "
            "compile on a machine of that kind"
        )
    mcpu = config.get("mcpu")
    known = get_global_func("target.llvm_get_cpu_archlist")(Target({"kind": "llvm"}))
    if mcpu and mcpu not in {str(name) for name in known}:
        raise TargetError(f"unknown mcpu {mcpu!r} in the target; `llc -mcpu=help` lists the names")


@cache
def recorded_device(target: str, *, threads: int, fingerprint: str) -> Device | None:
    """The device that a record was measured on, this machine or another; None if it can't be read.

    Args:
        target: a target's JSON text.
        threads: how many it ran on.
        fingerprint: its name.
    """
    try:
        config = json.loads(target)
        kept = {key: config[key] for key in ("kind", "mcpu", "mattr") if key in config}
        lanes, registers = _vector_unit(kept)
    except Exception:  # TVM raises whatever its C++ side threw
        return None
    return Device(target, threads, fingerprint, lanes, registers)


@cache
def multiplies_bytes(target: str) -> bool:
    """Whether a target has AVX-512 VNNI, which adds up products of unsigned and signed bytes.

    Args:
        target: a target's JSON text.
    """
    from tvm import get_global_func
    from tvm.target import Target

    has_feature = get_global_func("target.llvm_cpu_has_feature")
    return bool(has_feature("avx512vnni", Target(json.loads(target))))


def _multiply_adds(lanes: int, mcpu: str) -> int:
    return lanes if lanes == 16 and mcpu in _HALVED else 2 * lanes


def _vector_unit(config: dict[str, Any]) -> tuple[int, int]:
    """Float32 lanes and number of vector registers, by the widest unit that LLVM may use."""
    from tvm import get_global_func
    from tvm.target import Target

    has_feature = get_global_func("target.llvm_cpu_has_feature")
    target = Target(config)
    if has_feature("avx512f", target):
        return 16, 32
    if has_feature("avx2", target):
        return 8, 16
    return 4, 32 if has_feature("neon", target) else 16


@cache
def cpu_flags() -> frozenset[str]:
    """Feature flags of this machine's CPU (Linux; elsewhere empty)."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return frozenset()
    for line in text.splitlines():
        if line.startswith(("flags", "Features")):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def missing_features(needed: Iterable[str]) -> list[str]:
    """Those of the feature flags that this machine's CPU lacks; none where it does not tell."""
    return sorted(set(needed) - cpu_flags()) if cpu_flags() else []


def cpu_features() -> tuple[str, ...]:
    """The feature flags that matter to generated code."""
    return tuple(name for name in _FEATURES if name in cpu_flags())


def _fingerprint(config: dict[str, Any], threads: int) -> str:
    features = "+".join(cpu_features()) or platform.machine()
    mcpu = config.get("mcpu", "generic")
    digest = hashlib.sha256(f"{mcpu} {features} {threads}".encode()).hexdigest()[:8]
    return f"{mcpu}/{features}/{threads}t/{digest}"
