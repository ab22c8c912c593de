"""The compiled model's numbers against ONNX Runtime's on the same inputs.

    each feed      normal, uniform, sparse, zero and large values (runtime/feed.py)
    each output    two measures against what rounding explains (measure/compare.py)
    tolerance      from data types, lengths of sums and depth (build/tolerance.py), and from what
                   ONNX Runtime computes less exactly (build/fourier.py)
    appeal         what differs by more may be right where the model is ill-conditioned
                   (build/finding.py)

Agreement means something only if the outputs follow the inputs. A model whose weights are all
equal ends in the same softmax whatever its kernels compute: there the comparison can't fail, and
is said to be inconclusive instead of passed. An output that no input reaches is exempt: it was
computed when the model was read.

A feed that ONNX Runtime refuses (a length of zero, say) tells nothing of the compiled model. Where
its results are NaN or infinite, `measure/compare.py` says what is right.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Protocol

import numpy as np

from tunebank.build.finding import Finding, judge
from tunebank.build.reference import OnnxReference
from tunebank.errors import VerificationError
from tunebank.measure.compare import (
    LARGEST_FACTOR,
    LARGEST_ROUNDING,
    LEAST_ROUNDING,
    Difference,
    difference,
    magnitude,
)
from tunebank.runtime.feed import KINDS, Array, Feed, InputLike, random_feed

DEFAULT_ROUNDING = 1e-5
"""Relative error to expect where the kernels are not known: float32, sums of 14000 terms in all."""
BUDGET_SECONDS = 30.0

_MIN_FEEDS = 2
_SCALE_FLOOR = 1e-3
"""Outputs smaller than this, relative to those on other inputs, count as zeros with errors."""

_LARGEST_NUDGE = 1e-4
"""Of inputs, for second opinions: a quantised one that moves by half a step is another input."""

Run = Callable[[Feed], Sequence[Array]]


class Reference(Protocol):
    """What a compiled model is compared with."""

    output_names: list[str]

    def run(self, feed: Feed) -> list[Array]:
        """The outputs; raises whatever it raises on inputs that it refuses."""

    def second_opinions(self, feed: Feed, *, nudge: float) -> Iterator[list[Array]]:
        """Outputs of other right evaluations; see `OnnxReference`."""

    def follows_inputs(self, output: str) -> bool:
        """Whether the output is computed from the inputs at all."""


@dataclass(frozen=True)
class Verification:
    """Outcome of a comparison.

    Attributes:
        passed: whether every output agreed on every input.
        conclusive: whether every output of the reference changed with the inputs by more than
            the tolerance; if not, wrong kernels might have agreed too.
        max_abs_error: largest absolute difference.
        max_rel_error: largest difference relative to the largest magnitude of that output.
        worst: the input distribution and the output where most of the tolerance was used.
        tolerance: the `max_rel_error` that rounding explains.
        feeds: how many feeds told something.
        failure: the first finding that showed the model to be wrong; None if it passed.
    """

    passed: bool
    conclusive: bool
    max_abs_error: float
    max_rel_error: float
    worst: str
    tolerance: float
    feeds: int
    failure: Finding | None = None


def verify(
    run: Run,
    model_path: Path,
    inputs: Sequence[InputLike],
    *,
    threads: int,
    rounding: float = DEFAULT_ROUNDING,
    budget_seconds: float = BUDGET_SECONDS,
) -> Verification:
    """Compares a compiled model with ONNX Runtime on random and on edge-valued inputs.

    Args:
        run: runs the compiled model.
        model_path: the original model file.
        inputs: its inputs.
        threads: threads for ONNX Runtime.
        rounding: relative error to expect; `build.tolerance.expected_rounding` tells it.
        budget_seconds: no feed but the first two is begun later than this.

    Raises:
        VerificationError: ONNX Runtime can't load the model, or refuses every feed.
    """
    reference = OnnxReference(model_path, threads=threads)

    def compared(rounding: float) -> Verification:
        return verify_against(
            run, reference, inputs, rounding=rounding, budget_seconds=budget_seconds
        )

    try:
        found = compared(rounding)
        # To look for what it rounds itself takes reading the file, and few models have any.
        if found.passed or not reference.rounding:
            return found
        return compared(math.hypot(rounding, reference.rounding))
    except VerificationError as error:
        raise VerificationError(f"{model_path}: {error}") from error


def verify_against(
    run: Run,
    reference: Reference,
    inputs: Sequence[InputLike],
    *,
    rounding: float = DEFAULT_ROUNDING,
    budget_seconds: float = BUDGET_SECONDS,
) -> Verification:
    """Compares a compiled model with any reference; see `verify`."""
    comparison = _Comparison(run, reference, rounding)
    start = time.monotonic()
    for index, kind in enumerate(KINDS):
        if index >= _MIN_FEEDS and time.monotonic() - start > budget_seconds:
            break
        comparison.add(kind, random_feed(inputs, kind=kind))
    return comparison.outcome()


class _Comparison:
    """The findings so far, and the reference's outputs that tell something."""

    def __init__(self, run: Run, reference: Reference, rounding: float) -> None:
        self._run, self._reference = run, reference
        self._rounding = min(max(rounding, LEAST_ROUNDING), LARGEST_ROUNDING)
        self._findings: list[Finding] = []
        self._expected: dict[str, list[Array]] = {name: [] for name in reference.output_names}
        self._scales = dict.fromkeys(reference.output_names, 0.0)
        self._refusal = ""

    def add(self, kind: str, feed: Feed) -> None:
        """Compares on one feed."""
        try:
            expected = self._reference.run(feed)
        except Exception as error:  # not legal for the model; its exceptions share no base class
            self._refusal = " ".join(str(error).split())[:200]
            return

        @cache  # they are the same for all outputs
        def opinions() -> list[list[Array]]:
            nudge = min(self._rounding, _LARGEST_NUDGE)
            return list(self._reference.second_opinions(feed, nudge=nudge))

        actual = self._actual(feed, len(expected))
        for index, name in enumerate(self._expected):
            if isinstance(actual, str):
                wrong = Difference(flaw=actual, is_comparable=False)
                self._findings.append(Finding(name, kind, wrong, float("inf")))
                continue
            finding = judge(
                name,
                kind,
                actual[index],
                expected[index],
                rounding=self._rounding,
                scale=_SCALE_FLOOR * self._scales[name],
                opinions=partial(_column, opinions, index),
            )
            self._findings.append(finding)
            self._scales[name] = max(self._scales[name], magnitude(expected[index]))
            if finding.tells:
                self._expected[name].append(expected[index])

    def _actual(self, feed: Feed, count: int) -> list[Array] | str:
        """What the compiled model gives; or why it gives nothing to compare."""
        try:
            actual = [np.asarray(output) for output in self._run(feed)]
        except Exception as error:  # TVM raises whatever its C++ side threw
            lines = str(error).strip().splitlines() or [type(error).__name__]
            return f"fails where ONNX Runtime does not: {lines[-1][:200]}"
        return actual if len(actual) == count else f"{len(actual)} outputs instead of {count}"

    def outcome(self) -> Verification:
        """What all feeds showed.

        Raises:
            VerificationError: the reference refused every feed.
        """
        if not self._findings:
            raise VerificationError(
                "can't be verified, ONNX Runtime refuses every input that was drawn: "
                f"{self._refusal}; --no-verify lets it pass"
            )
        telling = [finding for finding in self._findings if finding.tells]
        worst = max(telling, key=lambda finding: finding.excess, default=None)
        return Verification(
            passed=not any(finding.is_wrong for finding in telling),
            conclusive=all(map(self._is_conclusive, self._expected)),
            max_abs_error=max((f.difference.max_abs for f in telling), default=0.0),
            max_rel_error=max((f.difference.largest for f in telling), default=0.0),
            worst=worst.place if worst is not None else "",
            tolerance=LARGEST_FACTOR * self._rounding,
            feeds=len({finding.kind for finding in telling}),
            failure=next((finding for finding in telling if finding.is_wrong), None),
        )

    def _is_conclusive(self, name: str) -> bool:
        """Whether an output differs from input to input by more than the tolerance."""
        found = self._expected[name]
        follows = any(difference(o, found[0]).excess(self._rounding) > 1.0 for o in found[1:])
        return follows or not self._reference.follows_inputs(name)


def _column(rows: Callable[[], Sequence[Sequence[Array]]], index: int) -> list[Array]:
    return [row[index] for row in rows()]
