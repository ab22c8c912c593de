"""What a model takes and gives: names, shapes, data types."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TensorSpec:
    """A model's input or output.

    Attributes:
        name: its name in the model file.
        shape: its extents.
        dtype: data type, numpy's name (`bfloat16` is that of `ml_dtypes`).
        limit: for integers that are indices, the exclusive upper bound of legal values, such as
            the size of the vocabulary for token ids; None where the model sets none.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    limit: int | None = None
