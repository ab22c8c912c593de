"""What a trace may say: checked before TVM sees it.

A bank may come from anyone, and TVM replays a trace on trust: a wrong type or a factor of zero
ends the process, and an annotation such as `pragma_import_llvm` would bring machine code of its
own. So a trace is held against the grammar of what MetaSchedule writes for a CPU. Each step has
a signature; a variable is written before it is read, once, and keeps its sort:

    step       kind(inputs; attributes) → outputs
    b  l  v    a block, a loop, a number that was sampled
    x          a `v` or a positive number
    s  n  f    a string, a small number, a flag
    + *        behind: one or more, any number

What the grammar lets through TVM itself either replays or refuses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tunebank.schedule.trace import Instruction, Steps, Trace

_SIGNATURES: dict[str, tuple[str, str, str]] = {
    "GetSBlock": ("", "s s", "b"),
    "GetLoops": ("b", "", "l*"),
    "GetProducers": ("b", "", "b*"),
    "GetConsumers": ("b", "", "b*"),
    "GetChildBlocks": ("b", "", "b*"),
    "GetOutputBlocks": ("b", "", "b*"),
    "SamplePerfectTile": ("l", "n n", "v+"),
    "SampleCategorical": ("", "numbers shares", "v"),
    "SampleComputeLocation": ("b", "", "l"),
    "Split": ("l x+", "f f", "l+"),
    "Fuse": ("l+", "f", "l"),
    "Reorder": ("l+", "", ""),
    "ComputeInline": ("b", "", ""),
    "ReverseComputeInline": ("b", "", ""),
    "ComputeAt": ("b l", "f n", ""),
    "ReverseComputeAt": ("b l", "f n", ""),
    "CacheRead": ("b blocks", "n scope", "b"),
    "CacheWrite": ("b blocks", "n scope", "b"),
    "RFactor": ("l", "n", "b"),
    "DecomposeReduction": ("b l", "", "b"),
    "Annotate": ("b value", "key", ""),
    "Unannotate": ("b", "key", ""),
}
_KEYS = {
    "meta_schedule.parallel",
    "meta_schedule.vectorize",
    "meta_schedule.unroll_explicit",
    "meta_schedule.unroll_implicit",
    "meta_schedule.random_compute_producer",
    "meta_schedule.tiling_structure",
    "schedule_rule",
}
"""Annotations that a post-processor reads; others reach LLVM."""

_VARIABLE = re.compile(r"([blv])\d{1,6}\Z", re.ASCII)
_TILING = re.compile(r'"?[A-Za-z]{0,16}"?\Z', re.ASCII)
_MAX_STEPS = 10_000
_MAX_NUMBER = 1 << 24
_MAX_PRODUCT = 1 << 40
_MAX_SMALL = 64


class GrammarError(ValueError):
    """A trace that says what no trace may say."""


@dataclass(frozen=True)
class _Decided:
    """What a step leaves open: the sort of its decision, and how many numbers or choices."""

    kind: str
    count: int


def check_trace(trace: Trace) -> None:
    """Holds a trace against the grammar.

    Raises:
        GrammarError: which step says what it may not.
    """
    wanted = _checked_steps(trace.instructions)
    if extra := set(trace.decisions) - set(wanted):
        raise GrammarError(f"step {min(extra)} takes no decision")
    for index, decided in wanted.items():
        if not _fits(trace.decisions.get(index), decided):
            raise GrammarError(f"step {index}: no decision that fits {decided.kind}")


@lru_cache(maxsize=4096)
def _checked_steps(steps: Steps) -> Mapping[int, _Decided]:
    """The decisions that correct steps leave open; many traces share their steps."""
    if len(steps) > _MAX_STEPS:
        raise GrammarError(f"{len(steps)} steps")
    sorts: dict[str, str] = {}
    wanted: dict[int, _Decided] = {}
    for index, step in enumerate(steps):
        try:
            _check_step(step, sorts)
        except GrammarError as error:
            raise GrammarError(f"step {index}: {error}") from error
        if step.kind.startswith("Sample"):
            choices = step.attributes[0] if step.kind == "SampleCategorical" else step.outputs
            wanted[index] = _Decided(step.kind, len(choices))
    return wanted


def _check_step(step: Instruction, sorts: dict[str, str]) -> None:
    if step.kind not in _SIGNATURES:
        raise GrammarError(f"{step.kind[:40]} is no step of a schedule for a CPU")
    inputs, attributes, outputs = _SIGNATURES[step.kind]
    agrees = (
        _matches(step.inputs, inputs, sorts)
        and _matches(step.attributes, attributes, sorts)
        and _writes(step.outputs, outputs, sorts)
        and _counts_agree(step)
    )
    if not agrees:
        raise GrammarError(f"{step.kind} does not fit its signature")


def _matches(values: Sequence[Any], pattern: str, sorts: Mapping[str, str]) -> bool:
    parts = pattern.split()
    if parts and parts[-1].endswith("+"):
        repeated = max(1, len(values) - len(parts) + 1)
        parts = parts[:-1] + [parts[-1][:-1]] * repeated
    return len(parts) == len(values) and all(
        _is(value, part, sorts) for value, part in zip(values, parts, strict=True)
    )


def _is(value: Any, part: str, sorts: Mapping[str, str]) -> bool:
    if part in ("b", "l", "v"):
        return isinstance(value, str) and sorts.get(value) == part
    if part == "x":
        return _is(value, "v", sorts) or _is_number(value, 1, _MAX_NUMBER)
    if part == "n":
        return _is_number(value, -2, _MAX_NUMBER)
    if part == "f":
        return isinstance(value, bool) or _is_number(value, 0, 1)
    if part == "s":
        return isinstance(value, str)
    if part == "numbers":
        return _are(value, lambda one: _is_number(one, 0, _MAX_NUMBER)) and len(value) > 0
    if part == "shares":
        return _are(value, lambda one: isinstance(one, float | int) and 0 <= one <= 1)
    if part == "blocks":
        return _are(value, lambda one: _is(one, "b", sorts))
    if part == "scope":
        return value in ("global", "local")
    if part == "key":
        return isinstance(value, str) and value in _KEYS
    assert part == "value", part
    is_text = isinstance(value, str) and _TILING.match(value) is not None
    return is_text or _is(value, "v", sorts) or _is_number(value, 0, _MAX_NUMBER)


def _are(value: Any, test: Any) -> bool:
    return isinstance(value, tuple) and len(value) <= _MAX_SMALL and all(map(test, value))


def _is_number(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _writes(names: Sequence[Any], pattern: str, sorts: dict[str, str]) -> bool:
    """Whether the names are new variables of these sorts; notes them."""
    sort, many = pattern[:1], pattern[1:]
    count_fits = len(names) <= _MAX_SMALL if many else len(names) == len(sort)
    if many == "+" and not names:
        return False
    for name in names:
        found = _VARIABLE.match(name) if isinstance(name, str) else None
        if found is None or found[1] != sort or name in sorts:
            return False
        sorts[name] = sort
    return count_fits


def _counts_agree(step: Instruction) -> bool:
    """Whether a step makes as many variables as it says."""
    if step.kind == "SamplePerfectTile":
        levels, limit = step.attributes
        return bool(len(step.outputs) == levels and limit >= 1)
    if step.kind == "Split":
        return len(step.outputs) == len(step.inputs) - 1
    if step.kind == "SampleCategorical":
        return len(step.attributes[0]) == len(step.attributes[1])
    if step.kind in ("CacheRead", "CacheWrite", "RFactor"):
        return _is_number(step.attributes[0], 0, _MAX_SMALL)
    if step.kind == "GetSBlock":
        return bool(step.attributes[1] == "main")
    return len(set(step.inputs)) == len(step.inputs) if step.kind in ("Fuse", "Reorder") else True


def _fits(decision: Any, decided: _Decided) -> bool:
    if decided.kind == "SampleCategorical":
        return _is_number(decision, 0, decided.count - 1)
    if decided.kind == "SampleComputeLocation":
        return _is_number(decision, -2, _MAX_SMALL)
    if not isinstance(decision, list) or len(decision) != decided.count:
        return False
    product = 1
    for factor in decision:
        if not _is_number(factor, 1, _MAX_NUMBER):
            return False
        product *= factor
    return product <= _MAX_PRODUCT
