"""One output on one feed judged: right, wrong, or a feed that can't tell.

Held first to what rounding explains. What differs by more may still be right, where the model is
ill-conditioned: then second opinions, each as right as the reference, differ from it too, and
up to four times as much is allowed, but never more than 25 %. Where second opinions are themselves
more than 10 % apart, or one overflows, nothing can be told. Quantised networks need that room: a
step at a boundary of rounding makes other values cross theirs, and two right evaluations of an int8
DistilBERT were 1 to 4 % apart in one runtime, and 3 to 9 % between two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tunebank.measure.compare import (
    LARGEST_FACTOR,
    LARGEST_ROUNDING,
    LEAST_ROUNDING,
    SPREAD_FACTOR,
    TIE_FACTOR,
    Array,
    Difference,
    difference,
    is_nowhere_finite,
)

OPINION_FACTOR = 4.0
"""A second opinion is one draw of what a right evaluation may give."""

_CEILING = 2.5
"""25 % instead of the 10 % that rounding may explain."""
_QUIET = 4.0
"""A slice that is off by so much more than the whole is what there is to say."""

Opinions = Callable[[], Sequence[Array]]


@dataclass(frozen=True)
class Finding:
    """How one output on one feed compares.

    Attributes:
        output: its name.
        kind: the feed's distribution.
        difference: how far it is from the reference.
        excess: how many times larger than what is allowed; up to 1 is agreement.
        tells: whether right can be told from wrong there.
    """

    output: str
    kind: str
    difference: Difference
    excess: float
    tells: bool = True

    @property
    def is_wrong(self) -> bool:
        """Whether it shows the compiled model to be wrong."""
        return self.tells and not self.excess <= 1.0

    @property
    def place(self) -> str:
        """Which output, on which input."""
        return f"output {self.output!r} on {self.kind} input"

    def __str__(self) -> str:
        found = self.difference
        if found.flaw:
            return f"{found.flaw} ({self.place})"
        if found.share:
            return f"in {found.share:.2%} of the elements ({self.place})"
        if found.spread > _QUIET * found.largest:
            return f"by {found.spread:.2g} of the norm of a slice ({self.place})"
        return f"by {found.largest:.2g} of the largest value ({self.place})"


def judge(
    output: str,
    kind: str,
    actual: Array,
    expected: Array,
    *,
    rounding: float,
    scale: float,
    opinions: Opinions,
) -> Finding:
    """Compares one output on one feed.

    Args:
        output: its name.
        kind: the feed's distribution.
        actual: what the compiled model gives.
        expected: what the reference gives.
        rounding: relative error to expect by rounding.
        scale: see `measure.compare.difference`.
        opinions: gives the output's second opinions; called where they are needed.
    """
    found = difference(actual, expected, scale=scale)
    excess = found.excess(rounding)
    if is_nowhere_finite(expected) and found.is_comparable:
        return Finding(output, kind, found, excess, tells=False)
    if excess <= 1.0 or not found.is_comparable:
        return Finding(output, kind, found, excess)
    others = [difference(opinion, expected, scale=scale) for opinion in opinions()]
    if any(_is_apart(other, expected.size) for other in others):
        return Finding(output, kind, found, excess, tells=False)
    allowed = min([excess, *(_excess_beside(found, other, rounding) for other in others)])
    ceiling = found.excess(LARGEST_ROUNDING) / _CEILING if not found.share else 0.0
    return Finding(output, kind, found, max(allowed, ceiling))


def _is_apart(opinion: Difference, size: int) -> bool:
    """Whether a second opinion differs by more than can be called the same."""
    if opinion.flaw or opinion.share:
        # A single element that ties is a tie, whatever share of the array it is.
        return bool(opinion.flaw) or (opinion.share * size > 1.5 and opinion.share > 0.05)
    return opinion.excess(LARGEST_ROUNDING) > 1.0


def _excess_beside(found: Difference, opinion: Difference, rounding: float) -> float:
    """How many times larger a difference is than a second opinion's allows."""
    bound = min(max(rounding, LEAST_ROUNDING), LARGEST_ROUNDING)
    return max(
        found.largest / max(OPINION_FACTOR * opinion.largest, LARGEST_FACTOR * bound),
        found.spread / max(OPINION_FACTOR * opinion.spread, SPREAD_FACTOR * bound),
        found.share / max(OPINION_FACTOR * opinion.share, TIE_FACTOR * bound),
    )
