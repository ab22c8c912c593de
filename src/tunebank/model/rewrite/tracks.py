"""Directions of a recurrent layer whose steps are taken together.

    forward      x0 x1 x2 ──▶ ──▶      h0 h1 h2
    backward     x2 x1 x0 ──▶ ──▶      h2 h1 h0

All that a step of both has is (2, B, ·): there are half as many steps, and each of two threads
has a direction of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tunebank.model.rewrite.cells import Layer
from tunebank.model.rewrite.replacement import Replacement
from tunebank.model.rewrite.sequence import concat_many, split_many

REVERSING_OPSET = 10
"""Since then slices have steps, also backwards."""


@dataclass(frozen=True)
class Track:
    """One direction, or both.

    Attributes:
        directions: which of the layer's.
        layer: the layer.
        new: where nodes are written.
    """

    directions: tuple[int, ...]
    layer: Layer
    new: Replacement

    @property
    def lead(self) -> list[int]:
        """Dimensions of a state before B and H."""
        return [len(self.directions)] if self._has_both else []

    @property
    def _has_both(self) -> bool:
        return len(self.directions) > 1

    def part_of(self, values: str) -> str:
        """The directions' part of what has them as its first dimension."""
        if len(self.directions) == len(self.layer.directions):
            return values
        (index,) = self.directions
        return self.new.slice(values, 0, index, index + 1)

    def steps(self, sequences: Sequence[str], width: int) -> list[str]:
        """What each step takes (2, B, width), or (B, width), in the order of the steps.

        Args:
            sequences: of each direction, in the order of time (T·B, width).
            width: as above.
        """
        new, layer = self.new, self.layer
        if not self._has_both:
            parts = split_many(new, sequences[0], layer.steps, extent=layer.batch)
            return parts[::-1] if self._is_backwards else parts
        forward, backward = (
            new.reshape(one, [layer.steps, 1, layer.batch, width]) for one in sequences
        )
        both = new.concat([forward, self._reversed(backward)], 1)
        flat = new.reshape(both, [layer.steps * 2, layer.batch, width])
        return split_many(new, flat, layer.steps, extent=2)

    def sequence(self, states: Sequence[str]) -> str:
        """States of all steps in the order of time (T, D, B, H)."""
        new, layer = self.new, self.layer
        if not self._has_both and self._is_backwards:
            states = states[::-1]
        shape = [layer.steps, len(self.directions), layer.batch, layer.hidden]
        whole = new.reshape(concat_many(new, states, 0), shape)
        if not self._has_both:
            return whole
        forward, backward = new.split(whole, 1, [1, 1])
        return new.concat([forward, self._reversed(backward)], 1)

    @property
    def _is_backwards(self) -> bool:
        return self.layer.directions[self.directions[0]] == "reverse"

    def _reversed(self, x: str) -> str:
        """Time the other way round."""
        steps = self.layer.steps
        return self.new.slice(x, 0, steps - 1, -steps - 1, step=-1)
