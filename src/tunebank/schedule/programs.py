"""Schedules that are programs of their own: what no transformation of the kernel's loops makes.

    Winograd    3x3 and 5x5 convolutions with fewer multiplications
    Rows        softmax, layer norm and their like, row by row
    Pixels      means over the pixels of an image
    Planes      transposes of images of few channels
    Panels      matrix products and convolutions of extents that have no good divisors
    Lines       convolutions and the window that slides over their results
    Windows     depthwise convolutions and poolings
    Pieces      concatenations and their like
    Gates       images weighted by channel
    Attention   two matrix products and the softmax between them

Each is a trace of one step, so that records, donors and plans hold it as they hold any other.
"""

from __future__ import annotations

from tvm import ir
from tvm.s_tir import SBlock, SBlockRealize

from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.schedule import (
    attention,
    gates,
    lines,
    panels,
    pieces,
    pixels,
    planes,
    rows,
    windows,
    winograd,
)
from tunebank.schedule.attention_program import attention_module
from tunebank.schedule.lines_program import lines_module
from tunebank.schedule.panels_program import panels_module
from tunebank.schedule.trace import Trace, whole_numbers
from tunebank.schedule.winograd_program import winograd_module

_PLAIN = {
    rows.KIND: rows.rows_module,
    pixels.KIND: pixels.pixels_module,
    planes.KIND: planes.planes_module,
    pieces.KIND: pieces.pieces_module,
    gates.KIND: gates.gates_module,
}
_WITH_PARAMETERS = {
    winograd.KIND: winograd_module,
    panels.KIND: panels_module,
    lines.KIND: lines_module,
    windows.KIND: windows.windows_module,
    attention.KIND: attention_module,
}
KINDS = (*_PLAIN, *_WITH_PARAMETERS)


def is_own_program(trace: Trace) -> bool:
    """Whether a schedule is a program of its own."""
    return bool(trace.instructions) and trace.instructions[0].kind in KINDS


def own_program(trace: Trace, kernel: Kernel, device: Device) -> ir.IRModule | None:
    """The program of a kernel under a schedule that is one; None for other schedules.

    Raises:
        ValueError: it does not fit the kernel, or is malformed.
    """
    if not is_own_program(trace):
        return None
    kind = trace.instructions[0].kind
    if kind in _WITH_PARAMETERS:
        return _with_root(_WITH_PARAMETERS[kind](kernel, device, trace))
    whole_numbers(trace, 0)
    return _with_root(_PLAIN[kind](kernel, device))


def _with_root(module: ir.IRModule) -> ir.IRModule:
    """The program inside a block: Relax's `RewriteDataflowReshape` asks each program for one."""
    func = module["main"]
    if isinstance(func.body, SBlockRealize):
        return module
    block = SBlock([], [], [], "root", func.body)
    return ir.IRModule({"main": func.with_body(SBlockRealize([], True, block))})
