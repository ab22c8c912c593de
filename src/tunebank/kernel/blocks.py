"""The blocks of a kernel: where they stand, what is around them, which one does the work."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tvm import ir, tirx
from tvm.s_tir import SBlock, SBlockRealize

from tunebank.kernel.expressions import branches, expressions

_REDUCTION = 2  # `IterVar.CommReduce`


@dataclass(frozen=True)
class BlockSite:
    """One block in program order.

    Attributes:
        name: the block's name.
        extents: extents of the loops around it, outermost first; None if one is symbolic.
        block: the block itself.
    """

    name: str
    extents: tuple[int, ...] | None
    block: SBlock = field(repr=False, compare=False)

    @property
    def reduces(self) -> bool:
        """Whether an axis of the block is a reduction."""
        return any(int(axis.iter_type) == _REDUCTION for axis in self.block.iter_vars)

    @property
    def spatial_loops(self) -> tuple[int, ...]:
        """Positions of the axes that are not reductions, outermost first."""
        kinds = [int(axis.iter_type) for axis in self.block.iter_vars]
        return tuple(index for index, kind in enumerate(kinds) if kind != _REDUCTION)


def block_sites(func: tirx.PrimFunc) -> tuple[BlockSite, ...]:
    """The function's blocks in program order, the root block first.

    The position of a block in this tuple is its canonical name: it is what relates the
    blocks of a donor to those of a target.
    """
    sites: list[BlockSite] = []

    def visit(stmt: Any, around: tuple[int, ...] | None) -> None:
        if isinstance(stmt, SBlockRealize):
            sites.append(BlockSite(str(stmt.block.name_hint), around, stmt.block))
            visit(stmt.block.body, ())
        elif isinstance(stmt, tirx.SeqStmt):
            for part in stmt.seq:
                visit(part, around)
        elif isinstance(stmt, tirx.For):
            known = around is not None and isinstance(stmt.extent, tirx.IntImm)
            visit(stmt.body, (*around, int(stmt.extent)) if known and around is not None else None)
        elif isinstance(stmt, tirx.IfThenElse):
            visit(stmt.then_case, around)
            if stmt.else_case is not None:
                visit(stmt.else_case, around)

    visit(func.body, ())
    return tuple(sites)


def anchor_position(sites: tuple[BlockSite, ...]) -> int | None:
    """Position of the *anchor*: the reduction that iterates most; None without a reduction."""
    reductions = [
        (math.prod(site.extents or ()), -position)
        for position, site in enumerate(sites)
        if site.reduces
    ]
    return -max(reductions)[1] if reductions else None


def inlined_size(sites: Iterable[BlockSite]) -> tuple[int, int]:
    """How large expressions are once each block is put where it is read.

    Returns:
        loads in the largest one, and choices in that with the most.
    """
    loads: dict[Any, int] = {}
    choices: dict[Any, int] = {}
    for site in sites:
        if isinstance(site.block.body, tirx.BufferStore):
            parts = list(expressions(site.block.body.value))
            read = [part.source for part in parts if isinstance(part, ir.TensorLoad)]
            own = sum(branches(part) is not None for part in parts)
            loads[site.block.body.buffer] = sum(1 + loads.get(one, 0) for one in read)
            choices[site.block.body.buffer] = own + sum(choices.get(one, 0) for one in read)
    return max(loads.values(), default=0), max(choices.values(), default=0)
