"""The reference schedule: what a kernel's numbers are compared with.

It must be right by its simplicity and yet not take seconds: only loops are reordered, split
and marked, block by block; nothing is moved, inlined, packed or rewritten.

    for s0, ..., sn, r0, ... :   →   parallel s0..sn-1, for r0, ..., vectorized sn
"""

from __future__ import annotations

from typing import Any

from tvm import ir, s_tir, tirx

from tunebank.kernel import Kernel
from tunebank.schedule.space import Scheduled

_LANES = 16
_SPATIAL = 0  # `IterVar.DataPar`


def reference_module(kernel: Kernel) -> ir.IRModule:
    """The kernel under the reference schedule."""
    schedule = s_tir.Schedule(kernel.module, debug_mask="none", error_render_level="none")
    for name in kernel.blocks[1:]:
        before = schedule.copy()
        try:
            _schedule_block(schedule, name)
        except RuntimeError:
            schedule = before  # a block that can't take it stays as it is: slow, but right
    return schedule.mod


def reference_scheduled(kernel: Kernel) -> Scheduled:
    """The kernel under the reference schedule, to be chosen where nothing else builds."""
    return Scheduled.from_schedule(kernel, s_tir.Schedule(reference_module(kernel)))


def output_positions(kernel: Kernel) -> list[int]:
    """Positions of the parameters that the kernel writes."""
    written: set[Any] = set()
    for site in kernel.sites:
        written.update(region.source for region in site.block.writes)
    return [index for index, param in enumerate(kernel.func.params) if param in written]


def _schedule_block(schedule: s_tir.Schedule, name: str) -> None:
    block_rv = schedule.get_sblock(name, "main")
    block = schedule.get(block_rv)
    loops = schedule.get_loops(block_rv)
    kinds = [int(axis.iter_type) for axis in block.iter_vars]
    if len(loops) != len(kinds) or not loops:
        return
    spatial = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == _SPATIAL]
    reduction = [loop for loop, kind in zip(loops, kinds, strict=True) if kind != _SPATIAL]
    if not spatial:
        return
    inner = spatial.pop()
    schedule.reorder(*spatial, *reduction, inner)
    extent = schedule.get(inner).extent
    if isinstance(extent, tirx.IntImm) and int(extent) % _LANES == 0 and not _has_truths(block):
        outer, inner = schedule.split(inner, [None, _LANES])
        schedule.reorder(*spatial, outer, *reduction, inner)
        spatial.append(outer)
        schedule.vectorize(inner)
    if spatial:
        schedule.parallel(schedule.fuse(*spatial) if len(spatial) > 1 else spatial[0])


def _has_truths(block: Any) -> bool:
    """Whether a block reads or writes truth values, of which LLVM takes no vectors."""
    return any(str(one.source.dtype) == "bool" for one in (*block.reads, *block.writes))
