"""The compiled model's numbers against ONNX Runtime's on the same inputs.

Agreement means something only if the outputs follow the inputs. A model whose weights are all
equal ends in the same softmax whatever its kernels compute: there the comparison can't fail, and
is said to be inconclusive instead of passed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from tunebank.model import TensorSpec

Array = np.ndarray[Any, Any]
Feed = dict[str, Array]
RELATIVE_TOLERANCE = 1e-3
"""Largest error allowed, relative to the largest magnitude of the reference's output: sums of
some thousand terms in another order, through some fifty layers."""


@dataclass(frozen=True)
class Verification:
    """Outcome of a comparison.

    Attributes:
        passed: whether every output agreed on every input.
        conclusive: whether every output of the reference changed with the inputs by more than
            the tolerance; if not, wrong kernels might have agreed too.
        max_abs_error: largest absolute difference.
        max_rel_error: largest difference relative to the largest magnitude of that output.
        worst: the input distribution and the output where the largest relative error was.
    """

    passed: bool
    conclusive: bool
    max_abs_error: float
    max_rel_error: float
    worst: str


def verify(
    run: Callable[[Feed], Sequence[Array]],
    model_path: Path,
    inputs: Sequence[TensorSpec],
    *,
    threads: int,
) -> Verification:
    """Compares a compiled model with ONNX Runtime on random and on edge-valued inputs.

    Args:
        run: runs the compiled model.
        model_path: the original model file.
        inputs: its inputs.
        threads: threads for ONNX Runtime.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    # The reference is the model as it was written, not as an optimiser rewrote it.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        str(model_path), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    worst, max_abs, max_rel, passed = "", 0.0, 0.0, True
    references: dict[str, list[Array]] = {name: [] for name in names}
    for kind, feed in example_inputs(inputs):
        expected = session.run(None, feed)
        actual = run(feed)
        for name, one, other in zip(names, actual, expected, strict=True):
            absolute, relative = _errors(np.asarray(one), np.asarray(other))
            passed = passed and relative <= RELATIVE_TOLERANCE
            if not relative <= max_rel:
                max_rel, worst = relative, f"output {name!r} on {kind} input"
            max_abs = max(max_abs, absolute)
            references[name].append(np.asarray(other))
    conclusive = all(_follows_inputs(outputs) for outputs in references.values())
    return Verification(passed, conclusive, max_abs, max_rel, worst)


def example_inputs(inputs: Sequence[TensorSpec]) -> Iterator[tuple[str, Feed]]:
    """Feeds to compare on: normal, uniform positive, zero, and large values, each named."""
    distributions: Mapping[str, Callable[[np.random.Generator, tuple[int, ...]], Array]] = {
        "normal": lambda rng, shape: rng.standard_normal(shape),
        "uniform": lambda rng, shape: rng.uniform(0.0, 1.0, shape),
        "zero": lambda rng, shape: np.zeros(shape),
        "large": lambda rng, shape: rng.choice([-100.0, 100.0], shape),
    }
    for index, (kind, draw) in enumerate(distributions.items()):
        rng = np.random.default_rng(index)
        yield kind, {spec.name: _input(spec, draw(rng, spec.shape), kind, rng) for spec in inputs}


def _input(spec: TensorSpec, values: Array, kind: str, rng: np.random.Generator) -> Array:
    if spec.dtype.startswith("float"):
        return values.astype(spec.dtype)
    if spec.dtype == "bool":
        return values > 0
    # Integers are mostly indices; 0 and 1 are within the range of any table worth the name.
    high = 1 if kind == "zero" else 2
    return rng.integers(0, high, spec.shape).astype(spec.dtype)


def _errors(actual: Array, expected: Array) -> tuple[float, float]:
    """Largest absolute error, and the same relative to the expected values' magnitude."""
    if actual.shape != expected.shape:
        return float("inf"), float("inf")
    one, other = actual.astype(np.float64), expected.astype(np.float64)
    if not np.array_equal(np.isfinite(one), np.isfinite(other)):
        return float("inf"), float("inf")
    finite = np.isfinite(other)
    absolute = float(np.abs(one[finite] - other[finite]).max(initial=0.0))
    scale = float(np.abs(other[finite]).max(initial=0.0))
    return absolute, absolute / scale if scale > 0 else absolute


def _follows_inputs(outputs: Sequence[Array]) -> bool:
    """Whether an output differs from input to input by more than the tolerance."""
    return any(_errors(other, outputs[0])[1] > RELATIVE_TOLERANCE for other in outputs[1:])
