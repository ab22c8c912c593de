"""Builds and runs one small program in a process of its own: does TVM work on this machine?

    python -m tunebank.device.trial [THREADS]   prints one JSON object

A library that does not fit the machine or its neighbours ends the process; so whoever wants to
know asks another process.
"""

from __future__ import annotations

import json
import sys

_LENGTH = 1024
_FEATURES = ("avx2", "fma", "avx512f", "avx512bw")  # spelt alike by LLVM and by Linux


def trial(threads: int | None) -> dict[str, object]:
    """Builds and runs a program; the device it was built for, and whether its numbers are right."""
    import numpy as np

    from tunebank.device.device import detect_device

    device = detect_device(threads=threads)
    import tvm
    from tvm import te, tirx
    from tvm.s_tir.meta_schedule import TuneContext

    a = te.placeholder((_LENGTH,), name="a")
    b = te.compute((_LENGTH,), lambda i: a[i] * 2.0 + 1.0, name="b")
    module = tvm.IRModule({"main": te.create_prim_func([a, b])})
    target = device.tvm_target()
    # Not used for the program, but it is where a wrong pair of libraries crashes.
    TuneContext(module, target=target, num_threads=1)
    has_feature = tvm.get_global_func("target.llvm_cpu_has_feature")
    features = [name for name in _FEATURES if has_feature(name, target)]
    program = tirx.build(module, target=target)
    values = np.arange(_LENGTH, dtype="float32")
    result = tvm.runtime.empty((_LENGTH,), "float32")
    program["main"](tvm.runtime.tensor(values), result)
    return {
        "target": device.target,
        "mcpu": device.mcpu,
        "threads": device.threads,
        "fingerprint": device.fingerprint,
        "features": features,
        "vector_lanes": device.vector_lanes,
        "right": bool(np.array_equal(result.numpy(), values * 2 + 1)),
    }


if __name__ == "__main__":
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else None
    sys.stdout.write(json.dumps(trial(wanted)) + "\n")
