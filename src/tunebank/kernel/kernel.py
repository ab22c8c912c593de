"""A kernel: one fused tensor program of a model."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property

from tvm import DataType, ir, tirx
from tvm.ir import IRModule
from tvm.s_tir.analysis import estimate_tir_flops

from tunebank.kernel.blocks import BlockSite, anchor_position, block_sites, inlined_size
from tunebank.kernel.canonical import anchor_key, class_key, kernel_key, layout_free


@dataclass(frozen=True)
class Kernel:
    """One fused tensor program of a model (TVM calls it a task or a workload).

    Attributes:
        key: identity, stable across processes, names and TVM versions.
        class_key: identity of the kernel's class: same structure, other extents.
        anchor_key: identity of its anchor operation; "" for a kernel without a reduction.
        name: a name to show, from the operators that were fused.
        flops: floating-point operations of one call.
        weight: calls of this kernel per run of the model.
        func: the unscheduled program.
    """

    key: str
    class_key: str
    anchor_key: str
    name: str
    flops: float
    weight: int
    func: tirx.PrimFunc = field(repr=False, compare=False)

    @classmethod
    def from_prim_func(cls, func: tirx.PrimFunc, *, name: str, weight: int = 1) -> Kernel:
        """The kernel of an unscheduled program."""
        func = func.with_attr("global_symbol", "main")
        return cls(
            key=kernel_key(func),
            class_key=class_key(func),
            anchor_key=anchor_key(func) or "",
            name=name,
            flops=float(estimate_tir_flops(ir.IRModule({"main": func}))),
            weight=weight,
            func=func,
        )

    @classmethod
    def from_ir(cls, text: str, *, name: str, weight: int = 1) -> Kernel:
        """The kernel written by `ir`. Loading runs no code of the text's own."""
        return cls.from_prim_func(ir.load_json(text)["main"], name=name, weight=weight)

    def with_weight(self, weight: int) -> Kernel:
        """The kernel, called that often per run of its model."""
        return replace(self, weight=weight)

    @cached_property
    def ir(self) -> str:
        """The program as TVM's JSON text."""
        return str(ir.save_json(self.module))

    @cached_property
    def module(self) -> IRModule:
        """The program as a module with the one function `main`."""
        return ir.IRModule({"main": self.func})

    @cached_property
    def sites(self) -> tuple[BlockSite, ...]:
        """The blocks in program order."""
        return block_sites(self.func)

    @cached_property
    def blocks(self) -> tuple[str, ...]:
        """Block names in program order; a position is a block's canonical name."""
        return tuple(site.name for site in self.sites)

    @cached_property
    def loop_extents(self) -> dict[int, tuple[int, ...]]:
        """By block position, extents of the loops around it, outermost first."""
        return {i: site.extents for i, site in enumerate(self.sites) if site.extents is not None}

    def spatial_loops(self, block: int) -> tuple[int, ...]:
        """Positions of the loops of a block that are not reductions, outermost first."""
        return self.sites[block].spatial_loops

    @cached_property
    def anchor(self) -> int | None:
        """Position of the anchor block, the reduction that iterates most."""
        return anchor_position(self.sites)

    @cached_property
    def inlined_size(self) -> tuple[int, int]:
        """Loads and choices in its expressions once each block is put where it is read."""
        return inlined_size(self.sites)

    @cached_property
    def layout_free(self) -> frozenset[int]:
        """Positions of the parameters that are constants and may be laid out anew."""
        return layout_free(self.func)

    @cached_property
    def argument_bytes(self) -> int:
        """Memory that the arguments of one call take, in bytes."""
        return sum(map(self.parameter_bytes, range(len(self.func.params))))

    def parameter_bytes(self, position: int) -> int:
        """Memory that one argument takes, in bytes; 0 of what is no array."""
        param = self.func.params[position]
        if not tirx.is_buffer_var(param):
            return 0
        extents = [int(extent) for extent in param.shape if isinstance(extent, tirx.IntImm)]
        return int(math.prod(extents) * DataType(str(param.dtype)).bits // 8)

    @property
    def gflop(self) -> float:
        """Billions of floating-point operations of one call."""
        return self.flops / 1e9
