"""What built programs do with memory: small buffers on the stack, weights asked for ahead."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import tirx

from programs import kernel, matmul, softmax
from tunebank.device import Device
from tunebank.schedule import Space
from tunebank.schedule.panels import Parameters
from tunebank.schedule.reference import reference_module
from tunebank.schedule.rows import rows_trace

WORKSPACE = "@__TVMBackendAllocWorkspace, "
"""A load of the function that gives memory from TVM's workspace."""
PREFETCH = "call void @llvm.prefetch"


def code(module: tvm.IRModule, device: Device) -> str:
    return str(tirx.build(module, target=device.tvm_target()).inspect_source("ll"))


def test_small_buffers_are_on_the_stack(device: Device) -> None:
    target = kernel(softmax(rows=6, columns=128))
    trace = rows_trace(target)
    assert trace is not None
    assert WORKSPACE not in code(Space(target, device).apply(trace).module, device)


def test_large_buffers_are_not(device: Device) -> None:
    target = kernel(softmax(rows=2, columns=4096))
    assert WORKSPACE in code(reference_module(target), device)


@pytest.mark.parametrize(("k", "is_far"), [(16, False), (512, True)])
def test_weights_are_asked_for_ahead(k: int, is_far: bool, device: Device) -> None:
    target = kernel(matmul(m=37, n=64, k=k).with_attr("layout_free_buffers", [1]))
    scheduled = Space(target, device).apply(Parameters(6, 1, 1).trace)
    assert (PREFETCH in code(scheduled.module, device)) == is_far


def test_branches_and_loops_keep_their_numbers(device: Device) -> None:
    """Whatever kind of statement a buffer is in."""
    from tvm.script import tirx as T  # noqa: N812

    @T.prim_func(s_tir=True)
    def main(x: T.Buffer((8, 16), "float32"), y: T.Buffer((8, 16), "float32")) -> None:
        for i in T.parallel(8):
            if i % 2 == 0:
                kept = T.alloc_buffer((16,), "float32")
                for j in range(16):
                    kept[j] = x[i, j] * T.float32(2)
                for j in range(16):
                    y[i, j] = kept[15 - j]
            else:
                for j in range(16):
                    y[i, j] = x[i, j]

    module = tvm.IRModule({"main": main})
    assert WORKSPACE not in code(module, device)
    x = np.arange(128, dtype="float32").reshape(8, 16)
    expected = np.where(np.arange(8)[:, None] % 2 == 0, 2 * x[:, ::-1], x)
    given, result = tvm.runtime.tensor(x), tvm.runtime.tensor(np.zeros_like(x))
    tirx.build(module, target=device.tvm_target())(given, result)
    np.testing.assert_array_equal(result.numpy(), expected)
