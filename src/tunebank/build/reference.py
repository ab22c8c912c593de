"""ONNX Runtime as the reference: the model as it was written, and second opinions on it.

The reference evaluates the graph node by node, without optimisations. A second opinion is another
right evaluation of the same model on the same inputs: by ONNX Runtime with all of its
optimisations (other fusions, other orders of summation, integer arithmetic for quantised graphs),
or of inputs nudged by as much as rounding errors amount to; where the inputs are indices, of the
tables that they index. How far a second opinion is from the reference tells how ill-conditioned the
model is there, which no count of roundings does.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from tunebank.build.fourier import fourier_rounding
from tunebank.errors import VerificationError
from tunebank.runtime.feed import Array, Feed, numpy_dtype

_BFLOAT16 = "tensor(bfloat16)"
_BFLOAT16_ONNX = 16  # `TensorProto.BFLOAT16`

_GRAPH_ATTRIBUTES = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
_Level = onnxruntime.GraphOptimizationLevel


class OnnxReference:
    """A model file, evaluated by ONNX Runtime on the CPU.

    Args:
        path: the model file.
        threads: threads to run on.

    Attributes:
        output_names: the outputs in order.

    Raises:
        VerificationError: ONNX Runtime can't load the model.
    """

    def __init__(self, path: Path, *, threads: int) -> None:
        self._path, self._threads = path, threads
        self._exact = self._first_session()
        self._optimised: onnxruntime.InferenceSession | None = None
        self.output_names: list[str] = [output.name for output in self._exact.get_outputs()]

    def run(self, feed: Feed) -> list[Array]:
        """The outputs.

        Raises:
            Exception: ONNX Runtime refuses these inputs; its exceptions share no base class.
        """
        return _run(self._exact, feed)

    def second_opinions(self, feed: Feed, *, nudge: float) -> Iterator[list[Array]]:
        """Outputs of other right evaluations; those that ONNX Runtime can't make are left out.

        Args:
            feed: the inputs.
            nudge: by how much floating-point inputs, or tables, are shifted, relative to their
                largest value.
        """
        with suppress(Exception):  # an opinion less
            if self._optimised is None:
                self._optimised = self._session(_Level.ORT_ENABLE_ALL)
            yield _run(self._optimised, feed)
        with suppress(Exception):
            nudged = nudged_feed(feed, nudge)
            if nudged is not None:
                yield self.run(nudged)
            elif tables := nudged_feed(self._tables(), nudge):
                yield self._run_with(tables, feed)

    def _run_with(self, weights: Mapping[str, Array], feed: Feed) -> list[Array]:
        """The outputs with other values for some weights."""
        make = onnxruntime.OrtValue.ortvalue_from_numpy
        values = {name: make(array) for name, array in weights.items()}  # outlive the session
        return _run(self._session(_Level.ORT_DISABLE_ALL, values), feed)

    def _tables(self) -> dict[str, Array]:
        """The model's tables that something is looked up in."""
        graph = self._model.graph
        names = {node.input[0] for node in graph.node if node.op_type == "Gather"}
        folder = str(self._path.parent)
        return {
            tensor.name: onnx.numpy_helper.to_array(tensor, folder)
            for tensor in graph.initializer
            if tensor.name in names
        }

    @cached_property
    def rounding(self) -> float:
        """Relative error of its own, beyond what summing in another order explains."""
        return fourier_rounding(self._model)

    def follows_inputs(self, output: str) -> bool:
        """Whether the output is computed from the inputs at all."""
        return output in self._following

    @cached_property
    def _model(self) -> onnx.ModelProto:
        return onnx.load(str(self._path), load_external_data=False)

    @cached_property
    def _following(self) -> set[str]:
        graph = self._model.graph
        weights = {tensor.name for tensor in graph.initializer}
        reached = {value.name for value in graph.input if value.name not in weights}
        for node in graph.node:  # in topological order, as ONNX has it
            # A branch or a loop sees the tensors around it without naming them as inputs.
            nested = any(a.type in _GRAPH_ATTRIBUTES for a in node.attribute)
            if nested or reached.intersection(node.input):
                reached.update(node.output)
        return reached

    def _first_session(self) -> onnxruntime.InferenceSession:
        # Some operators have no kernel of their own and run only as what optimisers make of them.
        failures = []
        for level in (_Level.ORT_DISABLE_ALL, _Level.ORT_ENABLE_BASIC, _Level.ORT_ENABLE_ALL):
            try:
                return self._session(level)
            except Exception as error:  # the next level is tried
                failures.append(" ".join(str(error).split())[:300])
        raise VerificationError(
            f"{self._path}: can't be verified, ONNX Runtime does not load it: {failures[-1]}; "
            "--no-verify lets it pass"
        )

    def _session(
        self, level: Any, weights: Mapping[str, Any] | None = None
    ) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        for name, value in (weights or {}).items():
            options.add_initializer(name, value)
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 4
        options.graph_optimization_level = level
        return onnxruntime.InferenceSession(
            str(self._path), options, providers=["CPUExecutionProvider"]
        )


def nudged_feed(feed: Mapping[str, Array], nudge: float) -> Feed | None:
    """The feed with its floating-point inputs shifted; None if there are none.

    Each element moves by `nudge` times the input's largest magnitude, up or down at random; an
    input of zeros moves as one of magnitude 1 would.
    """
    generator = np.random.default_rng(0)
    shifted: Feed = {}
    for name, array in feed.items():
        if array.dtype.kind in "iub":
            continue
        values = array.astype(np.float64)
        scale = float(np.abs(values).max(initial=0.0)) or 1.0
        step = max(nudge, _unit(array.dtype)) * scale
        shifted[name] = (values + generator.choice([-step, step], array.shape)).astype(array.dtype)
    return {**feed, **shifted} if shifted else None


def _unit(dtype: np.dtype[Any]) -> float:
    """Distance from 1 to the next number: less would be rounded away."""
    if dtype.kind == "f":
        return float(np.finfo(dtype).eps)
    import ml_dtypes

    describe: Any = ml_dtypes.finfo
    return float(describe(dtype).eps)


def _run(session: onnxruntime.InferenceSession, feed: Feed) -> list[Array]:
    types = [spec.type for spec in (*session.get_inputs(), *session.get_outputs())]
    if _BFLOAT16 not in types:
        return [np.asarray(output) for output in session.run(None, feed)]
    # ONNX Runtime's numpy interface lacks bfloat16: it goes in and out as raw bits.
    make = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type
    values = {
        name: make(array.view(np.uint16), _BFLOAT16_ONNX)
        if array.dtype.name == "bfloat16"
        else onnxruntime.OrtValue.ortvalue_from_numpy(array)
        for name, array in feed.items()
    }
    return [_array(value) for value in session.run_with_ort_values(None, values)]


def _array(value: onnxruntime.OrtValue) -> Array:
    if value.data_type() != _BFLOAT16:
        return np.asarray(value.numpy())
    shape: Sequence[int] = value.shape()
    count = int(np.prod(shape, dtype=np.int64))
    bits = np.frombuffer(ctypes.string_at(value.data_ptr(), 2 * count), np.uint16)
    return bits.view(numpy_dtype("bfloat16")).reshape(shape)
