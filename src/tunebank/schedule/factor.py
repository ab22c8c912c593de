"""Constant factors, laid out beforehand as a program reads them.

    packed[k // 16, r, k % 16] = w[r, k]        groups of columns, steps of a sum, columns

Where an instruction takes several steps at once, the values for them lie side by side.

    packed[k // 16, r // 4, k % 16 * 4 + r % 4] = w[r, k]

A block before the program does it, marked as TVM marks its own: it is left out of the program, and
done once, when the model is compiled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.tirx.script.builder import ir as T  # noqa: N812

from tunebank.kernel import Kernel

PACKING = "meta_schedule.layout_rewrite_preproc"
"""Marks such a block; TVM's name."""

Panel = Callable[[Any, Any], Any]
"""A factor's values for a group of columns, by the number of a step and by column."""


@dataclass(frozen=True)
class Factor:
    """What a sum multiplies by, and how a program goes along it.

    Attributes:
        load: the factor, as the kernel reads it.
        steps: axes that are summed over, in order.
        extents: of these.
        column: the axis whose elements are to lie side by side.
        width: its extent.
        depth: how many steps along the last of the axes an instruction takes.
    """

    load: Any
    steps: tuple[Any, ...]
    extents: tuple[int, ...]
    column: Any
    width: int
    depth: int = 1

    @property
    def loops(self) -> tuple[int, ...]:
        """Extents of the loops over the steps, `depth` of them at a time."""
        *outer, last = self.extents
        return (*outer, last // self.depth)

    def packed(self, buffers: Mapping[Any, Any], columns: int) -> Callable[[Any], Panel]:
        """Writes the block; returns the values by group.

        In a group that is not whole zeros stand for the columns that lack.

        Args:
            buffers: the program's parameters, by buffer of the kernel.
            columns: in a group.
        """
        depth = self.depth
        shape = [-(-self.width // columns), math.prod(self.loops), columns * depth]
        packed = T.sblock_alloc_buffer(shape, str(self.load.source.dtype))
        source = buffers[self.load.source]
        extents = [tirx.IntImm("int64", int(extent)) for extent in self.load.source.shape]
        with T.grid(*extents) as loops, T.sblock("pack"):
            axes = T.axis.remap("S" * len(extents), list(loops))
            at = dict(zip(self.load.indices, axes, strict=True))
            *outer, last = (at[axis] for axis in self.steps)
            column = at[self.column]
            place = [column // columns, self.number([*outer, last // depth])]
            place.append(column % columns * depth + last % depth)
            T.reads(source[tuple(axes)])
            T.writes(packed[tuple(place)])
            T.sblock_attr({PACKING: True})
            T.buffer_store(packed, source[tuple(axes)], place)
        return lambda group: lambda number, column: packed[group, number, column]

    def number(self, place: Sequence[Any]) -> Any:
        """The number of a step by its place in the loops, the last running fastest."""
        number: Any = 0
        for at, extent in zip(place, self.loops, strict=True):
            number = number * extent + at
        return number


def is_constant(kernel: Kernel, buffer: Any) -> bool:
    """Whether a buffer is a parameter that may be laid out anew when the model is compiled."""
    params = kernel.func.params
    return any(params[position].same_as(buffer) for position in kernel.layout_free)
