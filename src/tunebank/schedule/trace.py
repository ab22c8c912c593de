"""Schedules as text: MetaSchedule traces whose blocks are named by position.

A MetaSchedule trace names the blocks it starts from (`conv2d_nhwc`, `T_add_1`), and the names
change with the model and with TVM. A *canonical trace* names a block by its position in
program order, so that it can be replayed on any kernel of the class:

    ["GetSBlock", [], ["T_add_1", "main"], ["b2"]]   →   ["GetSBlock", [], ["#3", "main"], ["b2"]]

Only the part before post-processing is kept: it holds every decision, and post-processing is
done anew for each target. An instruction is `[kind, inputs, attributes, outputs]`, a decision
`[instruction index, value]`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from functools import cached_property, lru_cache
from typing import Any, ClassVar, TypeVar

_PREFIX = "#"
_Parameters = TypeVar("_Parameters", bound="OwnParameters")


@dataclass(frozen=True)
class Instruction:
    """One step of a trace; `inputs` and `outputs` name random variables (`b0`, `l3`, `v7`)."""

    kind: str
    inputs: tuple[Any, ...]
    attributes: tuple[Any, ...]
    outputs: tuple[str, ...]


class Steps(tuple[Instruction, ...]):
    """The instructions of a trace; hashed once, so that it can key what is derived from them."""

    @cached_property
    def _hash(self) -> int:
        return super().__hash__()

    def __hash__(self) -> int:
        return self._hash


@dataclass(frozen=True)
class Trace:
    """A canonical trace.

    Attributes:
        instructions: the steps in order, up to post-processing.
        decisions: by instruction index, the decision of a sampling step: tile factors, the
            index of a category, or the index of a loop.
    """

    instructions: Steps
    decisions: dict[int, Any]

    @classmethod
    def from_json(cls, trace_json: Sequence[Any], blocks: Sequence[str]) -> Trace:
        """A trace in MetaSchedule's JSON form, on a kernel with these block names.

        Raises:
            ValueError: not a trace.
        """
        positions = {name: f"{_PREFIX}{index}" for index, name in enumerate(blocks)}
        return _read(trace_json, positions)

    @staticmethod
    @lru_cache(maxsize=1024)
    def from_text(text: str) -> Trace:
        """The trace written by `text`; read once, since a donor serves many kernels.

        Raises:
            ValueError: not a trace.
        """
        return _read(json.loads(text), {})

    @property
    def text(self) -> str:
        """Compact JSON; equal traces have equal texts."""
        return json.dumps(self._json({}), separators=(",", ":"))

    def to_json(self, blocks: Sequence[str]) -> list[Any]:
        """The trace in MetaSchedule's JSON form, for a kernel with these block names."""
        return self._json({f"{_PREFIX}{index}": name for index, name in enumerate(blocks)})

    def with_decisions(self, changed: dict[int, Any]) -> Trace:
        """The trace with some decisions replaced."""
        return Trace(self.instructions, {**self.decisions, **changed})

    @property
    def identity(self) -> tuple[Steps, str]:
        """Equal for equal traces, and hashable."""
        return self.instructions, json.dumps(sorted(self.decisions.items()))

    @property
    def structure(self) -> tuple[str, ...]:
        """Kinds of the instructions: traces of one sketch have one structure."""
        return tuple(instruction.kind for instruction in self.instructions)

    def _json(self, names: dict[str, str]) -> list[Any]:
        instructions = [
            [step.kind, list(step.inputs), _renamed(step, names), list(step.outputs)]
            for step in self.instructions
        ]
        return [instructions, [[index, value] for index, value in sorted(self.decisions.items())]]


def one_step(kind: str, *attributes: int) -> Trace:
    """The trace of a schedule that is a program of its own; see `programs.py`."""
    return Trace(Steps([Instruction(kind, (), attributes, ())]), {})


@dataclass(frozen=True)
class OwnParameters:
    """The parameters of a schedule that is a program of its own, in the order of its attributes.

    Attributes:
        KIND: of the schedules that have them.
    """

    KIND: ClassVar[str]

    @property
    def trace(self) -> Trace:
        """The schedule."""
        return one_step(self.KIND, *astuple(self))

    @classmethod
    def of(cls: type[_Parameters], trace: Trace) -> _Parameters:
        """Those of a schedule.

        Raises:
            ValueError: it has others.
        """
        return cls(*whole_numbers(trace, len(fields(cls))))


def whole_numbers(trace: Trace, count: int) -> tuple[int, ...]:
    """The attributes of such a trace.

    Args:
        trace: of one step.
        count: how many there are to be.

    Raises:
        ValueError: there are others.
    """
    (step, *more) = trace.instructions
    values, is_alone = step.attributes, not (more or step.inputs or step.outputs)
    if not is_alone or len(values) != count or any(type(value) is not int for value in values):
        raise ValueError(f"not the parameters of a {step.kind} schedule")
    return tuple(values)


def canonical_trace(trace_json: Sequence[Any], blocks: Sequence[str]) -> str:
    """The text of a trace in MetaSchedule's JSON form; see `Trace.from_json`."""
    return Trace.from_json(trace_json, blocks).text


def _read(trace_json: Sequence[Any], names: dict[str, str]) -> Trace:
    try:
        steps, decisions = trace_json
        instructions = Steps(_instructions(steps, names))
        kept = {int(i): _plain(value) for i, value in decisions if int(i) < len(instructions)}
    except (TypeError, ValueError, IndexError, KeyError) as error:
        raise ValueError("not a MetaSchedule trace") from error
    return Trace(instructions, kept)


def _instructions(steps: Iterable[Any], names: dict[str, str]) -> Iterable[Instruction]:
    for kind, inputs, attributes, outputs in steps:
        if kind == "EnterPostproc":
            return
        parts = (_frozen(_plain(list(part))) for part in (inputs, attributes, outputs))
        step = Instruction(str(kind), *parts)
        yield Instruction(step.kind, step.inputs, tuple(_renamed(step, names)), step.outputs)


def _plain(value: Any) -> Any:
    """JSON alone: TVM leaves its own integers and arrays in the JSON of a mutated trace."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Iterable):
        return [_plain(part) for part in value]
    return value.value


def _frozen(value: Any) -> Any:
    """The value with tuples for lists, so that it can be hashed."""
    return tuple(_frozen(part) for part in value) if isinstance(value, list) else value


def _renamed(step: Instruction, names: dict[str, str]) -> list[Any]:
    if step.kind != "GetSBlock":
        return list(step.attributes)
    return [names.get(step.attributes[0], step.attributes[0]), *step.attributes[1:]]
