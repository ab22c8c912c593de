"""What each sampling step of a trace decides: the *role* of its loop.

A trace refers to loops by random variables. To carry a decision from one kernel to another
we need to know which loop of which block a tiling step splits, and how long that loop is on
each of the two. The few instruction kinds that make loops are interpreted over the kernel's
static extents; nothing is scheduled:

    b0      = GetSBlock("#2")       block 2 of the kernel
    l3, l4  = GetLoops(b0)          loops 0 and 1 of block 2
    l5      = Fuse(l3, l4)          loops (0, 1), extent = product
    v6, v7  = SamplePerfectTile(l5) role: block 2, loops (0, 1), 2 factors

A loop that some other instruction made (after a split by unknown factors, of a block created
on the way) has no role; its step keeps the donor's decision.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from tunebank.schedule.trace import Instruction, Steps, Trace

LoopExtents = Mapping[int, Sequence[int]]


@dataclass(frozen=True)
class TileRole:
    """Which loop a `SamplePerfectTile` splits.

    Attributes:
        block: position of the block in program order.
        loops: positions of the loops of that block, outermost first; several if fused.
        extent: product of the loops' extents.
        levels: into how many loops it is split.
        innermost_limit: largest innermost factor that the sampler would draw.
    """

    block: int
    loops: tuple[int, ...]
    extent: int
    levels: int
    innermost_limit: int


@dataclass(frozen=True)
class _Loop:
    block: int
    loops: tuple[int, ...]
    extent: int


def tile_roles(trace: Trace, extents: LoopExtents) -> dict[int, TileRole]:
    """The role of each `SamplePerfectTile`, by instruction index.

    Args:
        trace: a canonical trace.
        extents: by block position, extents of the loops around the block, outermost first.
    """
    return _roles(trace.instructions, tuple((i, tuple(e)) for i, e in extents.items()))


@lru_cache(maxsize=4096)
def _roles(
    steps: Steps, extents_items: tuple[tuple[int, tuple[int, ...]], ...]
) -> dict[int, TileRole]:
    extents = dict(extents_items)
    blocks: dict[str, int] = {}
    loops: dict[str, _Loop] = {}
    roles: dict[int, TileRole] = {}
    for index, step in enumerate(steps):
        if step.kind == "GetSBlock":
            _note_block(step, blocks)
        elif step.kind == "GetLoops":
            _note_loops(step, blocks, loops, extents)
        elif step.kind == "Fuse" and all(name in loops for name in step.inputs):
            parts = [loops[name] for name in step.inputs]
            positions = tuple(position for part in parts for position in part.loops)
            extent = math.prod(part.extent for part in parts)
            loops[step.outputs[0]] = _Loop(parts[0].block, positions, extent)
        elif step.kind == "SamplePerfectTile" and step.inputs[0] in loops:
            loop = loops[step.inputs[0]]
            levels, limit = (int(value) for value in step.attributes)
            roles[index] = TileRole(loop.block, loop.loops, loop.extent, levels, limit)
    return roles


def _note_block(step: Instruction, blocks: dict[str, int]) -> None:
    name = str(step.attributes[0])
    if name[:1] == "#" and name[1:].isdigit():
        blocks[step.outputs[0]] = int(name[1:])


def _note_loops(
    step: Instruction,
    blocks: dict[str, int],
    loops: dict[str, _Loop],
    extents: LoopExtents,
) -> None:
    block = blocks.get(str(step.inputs[0]))
    if block is None or len(extents.get(block, ())) != len(step.outputs):
        return  # the loops around it are not those of the unscheduled kernel any more
    for position, (name, extent) in enumerate(zip(step.outputs, extents[block], strict=True)):
        loops[name] = _Loop(block, (position,), int(extent))
