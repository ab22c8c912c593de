"""Taking sequences apart and putting them together, along their first dimension.

A tensor program that joins a hundred tensors asks for each element from which of them it is, one
after another. So both go over groups, whose programs are alike.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunebank.model.rewrite.replacement import Replacement

_GROUP = 16


def split_many(new: Replacement, x: str, count: int, *, extent: int = 1) -> list[str]:
    """So many parts along the first dimension, each of the given extent there."""
    if count <= _GROUP:
        return new.split(x, 0, [extent] * count)
    whole = _GROUP
    while whole * _GROUP < count:
        whole *= _GROUP
    counts = [min(whole, count - start) for start in range(0, count, whole)]
    parts = new.split(x, 0, [extent * part for part in counts])
    return [
        entry
        for part, inside in zip(parts, counts, strict=True)
        for entry in split_many(new, part, inside, extent=extent)
    ]


def concat_many(
    new: Replacement, parts: Sequence[str], axis: int, *, out: str | None = None
) -> str:
    """Parts one after another along an axis."""
    while len(parts) > _GROUP:
        groups = [parts[start : start + _GROUP] for start in range(0, len(parts), _GROUP)]
        parts = [new.concat(group, axis) for group in groups]
    return new.concat(parts, axis, out=out)
