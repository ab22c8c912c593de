"""A cost model that was trained before, on a bank: what it is, as text and as numbers.

Gradient-boosted trees over `schedule.features`. A bank keeps one beside its records, as JSON that
is checked before it is used: whatever it says, evaluating it ends, and reads nothing but its own
arrays. Training is in `pretraining.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from tunebank.bank import Bank
from tunebank.schedule.features import FEATURES, Features

Floats = npt.NDArray[np.float32]
_Child = Annotated[int, Field(ge=-1, lt=2**31)]
_Feature = Annotated[int, Field(ge=0, lt=len(FEATURES))]
_NO_CHILD = -1
_MOST_NODES, _MOST_TREES = 1023, 4096
"""More than any that is grown here: a stranger's must not take forever."""


class Tree(BaseModel):
    """One tree; a position is that of a node, the root's is 0, and a child's is above its parent's.

    Attributes:
        left: of each node the child for values below its threshold; -1 of a leaf.
        right: the other child.
        feature: by which it splits.
        value: of a leaf what it adds, of another node its threshold.
        missing_left: whether NaN goes to the left.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    left: tuple[_Child, ...] = Field(max_length=_MOST_NODES)
    right: tuple[_Child, ...]
    feature: tuple[_Feature, ...]
    value: tuple[FiniteFloat, ...]
    missing_left: tuple[bool, ...]

    @model_validator(mode="after")
    def _is_a_tree(self) -> Tree:
        size = len(self.left)
        columns = (self.right, self.feature, self.value, self.missing_left)
        if not size or any(len(column) != size for column in columns):
            raise ValueError("columns of different lengths")
        for node, children in enumerate(zip(self.left, self.right, strict=True)):
            is_leaf = children == (_NO_CHILD, _NO_CHILD)
            if not is_leaf and not all(node < child < size for child in children):
                raise ValueError(f"node {node} is neither a leaf nor a branch")
        return self


class Part(BaseModel):
    """What was learnt at once.

    Attributes:
        trials: from how many measurements, by the device's fingerprint.
        sources: the models that these were made for.
        trees: what they say is added up.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    trials: dict[str, Annotated[int, Field(ge=0)]]
    sources: tuple[str, ...]
    trees: tuple[Tree, ...] = Field(max_length=_MOST_TREES)


class PretrainedModel(BaseModel):
    """Predicts how many octaves a schedule is slower than the best of its kernel.

    Attributes:
        version: of this form.
        features: names of what it looks at; those that `schedule.features` gives.
        base: what all trees add to.
        least: what it says of the most promising schedule of a kernel, on average: not 0, since it
            can't be sure.
        general: what was learnt from many models, mostly elsewhere.
        own: what corrects it for the machine of the bank that keeps it.
        seen: how many records of that machine the bank had when this was learnt.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    features: tuple[str, ...] = FEATURES
    base: FiniteFloat
    least: FiniteFloat = 0.0
    general: Part
    own: Part | None = None
    seen: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _looks_at_what_there_is(self) -> PretrainedModel:
        if self.features != FEATURES:
            raise ValueError("trained on other features")
        return self

    @property
    def parts(self) -> tuple[Part, ...]:
        """What was learnt, in order."""
        return (self.general,) if self.own is None else (self.general, self.own)

    @property
    def trials(self) -> Counter[str]:
        """How many measurements it was trained on, by the device's fingerprint."""
        return sum((Counter(part.trials) for part in self.parts), Counter())

    @property
    def sources(self) -> frozenset[str]:
        """The models that these were made for."""
        return frozenset(source for part in self.parts for source in part.sources)

    def octaves(self, features: Features) -> Floats:
        """Expected octaves of some schedules of a kernel.

        Args:
            features: (schedules, features), of `schedule.features`.
        """
        left, right, feature, value, missing_left, roots = self._nodes
        rows = np.arange(len(features))[:, None]
        node = np.broadcast_to(roots, (len(features), len(roots)))
        while (left[node] != _NO_CHILD).any():
            given = features[rows, feature[node]]
            goes_left = np.where(np.isnan(given), missing_left[node], given < value[node])
            child = np.where(goes_left, left[node], right[node])
            node = np.where(left[node] == _NO_CHILD, node, child)
        total: Floats = np.float32(self.base) + value[node].sum(axis=1, dtype=np.float32)
        return total

    @cached_property
    def _nodes(self) -> tuple[npt.NDArray[Any], ...]:
        """The columns of all trees' nodes behind each other, and the positions of the roots."""
        trees = [tree for part in self.parts for tree in part.trees]
        sizes = [len(tree.left) for tree in trees]
        starts = np.cumsum([0, *sizes])[:-1]
        offsets = np.repeat(starts, sizes)

        def column(name: str, kind: type[np.generic]) -> npt.NDArray[Any]:
            return np.array([value for tree in trees for value in getattr(tree, name)], kind)

        def children(name: str) -> npt.NDArray[Any]:
            own = column(name, np.int64)
            return np.where(own == _NO_CHILD, own, own + offsets)

        return (
            *(children("left"), children("right"), column("feature", np.int64)),
            *(column("value", np.float32), column("missing_left", np.bool_), starts),
        )


def pretrained(bank: Bank, *, exclude_sources: Collection[str] = ()) -> PretrainedModel | None:
    """The first cost model of a bank, or of a chain of them, that may be used; None if none.

    One that is damaged, or of another version, counts as none.

    Args:
        bank: where to look.
        exclude_sources: models whose measurements it must not have seen.
    """
    for text in bank.cost_models():
        model = read(text)
        if model is not None and not model.sources & set(exclude_sources):
            return model
    return None


def read(text: str) -> PretrainedModel | None:
    """The cost model written as JSON; None if it is none that this version can use."""
    try:
        return PretrainedModel.model_validate_json(text)
    except (ValidationError, RecursionError):
        return None
