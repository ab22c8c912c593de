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
from tunebank.schedule.trace import Trace
from tunebank.schedule.winograd_program import winograd_module

_OWN = (winograd, rows, pixels, planes, panels, lines, windows, pieces, gates, attention)
KINDS = tuple(one.KIND for one in _OWN)


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
    (step,) = trace.instructions
    if step.kind == winograd.KIND:
        parameters = winograd.parameters_of(trace)
        assert parameters is not None
        return _with_root(winograd_module(kernel, device, parameters))
    if step.kind == panels.KIND:
        return _with_root(panels_module(kernel, device, panels.parameters_of(trace)))
    if step.kind == lines.KIND:
        return _with_root(lines_module(kernel, device, lines.parameters_of(trace)))
    if step.kind == attention.KIND:
        return _with_root(attention_module(kernel, device, attention.parameters_of(trace)))
    if step.kind == windows.KIND:
        return _with_root(windows.windows_module(kernel, device, trace))
    if step.inputs or step.attributes or step.outputs:
        raise ValueError(f"{step.kind} has no parameters")
    if step.kind == planes.KIND:
        return _with_root(planes.planes_module(kernel))
    make = {
        rows.KIND: rows.rows_module,
        pixels.KIND: pixels.pixels_module,
        pieces.KIND: pieces.pieces_module,
        gates.KIND: gates.gates_module,
    }[step.kind]
    return _with_root(make(kernel, device))


def _with_root(module: ir.IRModule) -> ir.IRModule:
    """The program inside a block: Relax's `RewriteDataflowReshape` asks each program for one."""
    func = module["main"]
    if isinstance(func.body, SBlockRealize):
        return module
    block = SBlock([], [], [], "root", func.body)
    return ir.IRModule({"main": func.with_body(SBlockRealize([], True, block))})
