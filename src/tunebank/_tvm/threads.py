"""TVM's thread pool on the cores that it should have.

Left alone, TVM takes half of the logical cores, and so one of two on a virtual machine without
hyper-threading. It binds the threads of its pool to a core each but lets the calling thread, which
does its share of the work, wander: when the two meet on one core, every parallel kernel
takes twice as long, for seconds. Here the pool gets one physical core per thread, and the caller is
held on the one that is left for as long as a program runs. Goes when TVM does so.
"""

from __future__ import annotations

import os
import threading
from functools import cache
from pathlib import Path

SPIN_COUNT = 30_000
"""How often an idle pool thread looks for work before it sleeps: some 5 ms, longer than the gap
between two kernels of a model, or two runs of a measurement. TVM's own 300000 are some 55 ms
of a core after every run, in which nothing else can be built or timed."""

_ONE_CORE_PER_THREAD = -2  # `kSpecifyOneCorePerThread` of TVM's affinity modes
_configured = threading.local()  # TVM keeps a pool for each thread that calls it


@cache
def core_ids() -> tuple[int, ...]:
    """Logical processors that this process may use, one per physical core.

    Empty where the system does not tell.
    """
    if not hasattr(os, "sched_getaffinity"):
        return ()
    chosen: dict[str, int] = {}
    for cpu in sorted(os.sched_getaffinity(0)):
        chosen.setdefault(_siblings(cpu), cpu)
    return tuple(chosen.values())


def _siblings(cpu: int) -> str:
    """Names the physical core of a logical processor."""
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    try:
        return path.read_text().strip()
    except OSError:
        return str(cpu)


def configure_pool(threads: int) -> tuple[int, ...]:
    """Gives the calling thread's pool so many threads; returns their cores, the caller's first."""
    cores = _cores_for(threads)
    if getattr(_configured, "threads", None) != threads:
        import tvm

        configure = tvm.get_global_func("runtime.config_threadpool")
        if cores:
            configure(_ONE_CORE_PER_THREAD, threads, [str(core) for core in cores])
        else:
            configure(1, threads)
        _configured.threads = threads
    return cores


@cache
def _cores_for(threads: int) -> tuple[int, ...]:
    return core_ids()[:threads] if len(core_ids()) >= threads else ()


class running_on:  # noqa: N801  a context manager, faster than one made of a generator
    """Inside, programs that the calling thread runs have a core per thread."""

    def __init__(self, threads: int) -> None:
        self._own = configure_pool(threads)[:1]
        self._before: set[int] = set()

    def __enter__(self) -> None:
        if self._own:
            self._before = os.sched_getaffinity(0)
            os.sched_setaffinity(0, self._own)

    def __exit__(self, *error: object) -> None:
        if self._own:
            os.sched_setaffinity(0, self._before)
