"""The arithmetic that this machine can do: measured, since no data sheet knows what shares it.

Each thread multiplies and adds in vector registers alone, with accumulators in all of them but a
few, so that every multiply-add is issued as soon as a unit is free. Nothing is loaded meanwhile.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from tunebank import _tvm
from tunebank.device.device import Device

_STEPS = 200_000
_REPEATS = 25
_OPERANDS = 4
"""Registers that hold no accumulator."""


@cache
def peak_gflop_per_s(device: Device) -> float:
    """Billions of float32 operations per second on all threads of a device, a multiply-add as two.

    It takes a fifth of a second. Measured once in a process.
    """
    _tvm.prepare(threads=device.threads)
    import numpy as np
    import tvm
    from tvm import tirx

    lanes, accumulators = device.vector_lanes, device.vector_registers - _OPERANDS
    module = _module(device.threads, accumulators, lanes)
    program = tirx.build(module, target=device.tvm_target())
    width = accumulators * lanes
    sums = tvm.runtime.tensor(np.ones((device.threads, accumulators, lanes), "float32"))
    factor = tvm.runtime.tensor(np.full(lanes, 0.5, "float32"))
    timer = program.time_evaluator("main", tvm.cpu(), number=1, repeat=_REPEATS)
    with _tvm.running_on(device.threads):
        fastest = float(min(timer(sums, factor).results))
    return 2.0 * device.threads * width * _STEPS / fastest / 1e9


def _module(threads: int, accumulators: int, lanes: int) -> Any:
    import tvm.script

    return tvm.script.from_source(
        _SOURCE.format(threads=threads, accumulators=accumulators, lanes=lanes, steps=_STEPS)
    )


_SOURCE = """
@I.ir_module
class Module:
    @T.prim_func
    def main(
        sums: T.Buffer(({threads}, {accumulators}, {lanes}), "float32"),
        factor: T.Buffer(({lanes},), "float32"),
    ):
        T.func_attr({{"tirx.noalias": True, "global_symbol": "main"}})
        for t in T.parallel({threads}):
            own = T.alloc_buffer(({accumulators}, {lanes}), "float32", scope="local")
            for a in T.unroll({accumulators}):
                for v in T.vectorized({lanes}):
                    own[a, v] = sums[t, a, v]
            for k in range({steps}):
                for a in T.unroll({accumulators}):
                    for v in T.vectorized({lanes}):
                        own[a, v] = own[a, v] * factor[v] + factor[v]
            for a in T.unroll({accumulators}):
                for v in T.vectorized({lanes}):
                    sums[t, a, v] = own[a, v]
"""
