"""One case of the survey of operators: a small model, compiled by TVM and run."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

PASSED, WRONG, REFUSED, CRASHED, SKIPPED = "passed", "wrong", "refused", "crashed", "skipped"

# Inputs, by number, that say what shape the result has or how it is computed.
_PARAMETERS: dict[str, tuple[int, ...]] = {
    "Reshape": (1,),
    "Expand": (1,),
    "Tile": (1,),
    "ConstantOfShape": (0,),
    "Slice": (1, 2, 3, 4),
    "Pad": (1, 2, 3),
    "Resize": (1, 2, 3),
    "Upsample": (1,),
    "Split": (1,),
    "Squeeze": (1,),
    "Unsqueeze": (1,),
    "TopK": (1,),
    "OneHot": (1,),
    "Range": (0, 1, 2),
    "CumSum": (1,),
    "CumProd": (1,),
    "Trilu": (1,),
    "CenterCropPad": (1,),
    "AffineGrid": (1,),
    "Col2Im": (1, 2),
    "MaxUnpool": (2,),
    "Compress": (1,),
    "DFT": (1, 2),
    "STFT": (1, 3),
    "HannWindow": (0,),
    "HammingWindow": (0,),
    "BlackmanWindow": (0,),
    "MelWeightMatrix": (0, 1, 2, 3, 4),
    "NonMaxSuppression": (2, 3, 4),
    "SplitToSequence": (1,),
    "Loop": (0, 1),
    "If": (0,),
    "Dropout": (1, 2),
    "ReverseSequence": (1,),
    "Clip": (1, 2),
    "QuantizeLinear": (1, 2),
    "DequantizeLinear": (1, 2),
    "QLinearConv": (1, 2, 3, 4, 5, 6, 7),
    "QLinearMatMul": (1, 2, 4, 5, 6, 7),
    "ConvInteger": (2, 3),
    "MatMulInteger": (2, 3),
    **dict.fromkeys(
        ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean"),
        (1,),
    ),
    **dict.fromkeys(
        ("ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare"),
        (1,),
    ),
}

# Not inference, or not tensors.
_LEFT_OUT = {"Adagrad", "Adam", "Momentum", "Gradient", "Bernoulli", "ImageDecoder"}


@dataclass(frozen=True)
class Result:
    """What became of one case.

    Attributes:
        case: its name in the `onnx` package.
        operator: the operators of its graph, `+` between them.
        outcome: passed, wrong, refused (an error), crashed, or skipped.
        reason: why, in one line; empty where it passed.
    """

    case: str
    operator: str
    outcome: str
    reason: str = ""


@functools.cache
def cases() -> dict[str, Any]:
    """The cases of the `onnx` package by name; collecting them takes seconds, so once."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {case.name: case for case in collect_testcases(None)}


def operators_of(model: onnx.ModelProto) -> str:
    """The operators of a graph, `+` between them."""
    return "+".join(sorted({node.op_type for node in model.graph.node}))


def tried(case: Any) -> Result:
    """Compiles and runs one case."""
    operator = operators_of(case.model)
    inputs, outputs = case.data_sets[0]
    arrays = [value for value in (*inputs, *outputs) if isinstance(value, np.ndarray)]
    if len(arrays) < len(inputs) + len(outputs) or any(a.dtype == object for a in arrays):
        return Result(case.name, operator, SKIPPED, "not all of it tensors of numbers")
    if operator in _LEFT_OUT:
        return Result(case.name, operator, SKIPPED, "not inference")
    names = [value.name for value in case.model.graph.input]
    given = dict(zip(names, inputs, strict=False))
    try:
        expected = _reference(case.model, given)
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        return Result(case.name, operator, SKIPPED, f"ONNX Runtime: {_line(error)}")
    try:
        base = cases().get(case.name.split("_expanded")[0])
        model = _with_constants(case.model, given, base.model if base else None)
        got = _compiled_and_run(model, given)
    except Exception as error:  # whatever comes out of TVM is a result here
        return Result(case.name, operator, REFUSED, _line(error))
    reason = difference(got, expected)
    return Result(case.name, operator, WRONG if reason else PASSED, reason)


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"[:300]


def _reference(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, inputs))


def _parameters(graph: onnx.GraphProto) -> Iterator[str]:
    for node in graph.node:
        for index in _PARAMETERS.get(node.op_type, ()):
            if index < len(node.input):
                yield node.input[index]


def _with_constants(
    model: onnx.ModelProto, inputs: dict[str, np.ndarray], base: onnx.ModelProto | None
) -> onnx.ModelProto:
    """The model with its parameters as initializers, and fixed input shapes."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    constants = set(_parameters(copy.graph))
    if base is not None:  # the same operator, expanded to others: the same parameters
        constants |= set(_parameters(base.graph))
    for value in list(copy.graph.input):
        if value.name in constants:
            copy.graph.initializer.append(
                onnx.numpy_helper.from_array(inputs[value.name], value.name)
            )
            copy.graph.input.remove(value)
            continue
        shape = value.type.tensor_type.shape
        del shape.dim[:]
        for extent in inputs[value.name].shape:
            shape.dim.add().dim_value = extent
    return copy


def _compiled_and_run(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Rewritten, imported, compiled without tuning, and run."""
    from tunebank import _tvm
    from tunebank.errors import ModelError
    from tunebank.model.rewrite import rewrite, unsupported, upcast

    _tvm.prepare(threads=1)
    import tvm
    from tvm import relax
    from tvm.relax.frontend.onnx import from_onnx

    from tunebank._tvm.onnx_frontend import repair_importer

    repair_importer()
    model = rewrite(upcast(model))
    if missing := unsupported(model):
        raise ModelError("TVM lacks " + "; ".join(missing))
    names = [value.name for value in model.graph.input]
    module = from_onnx(model, keep_params_in_input=False)
    executable = tvm.compile(
        relax.transform.LegalizeOps()(module), target=tvm.target.Target("llvm")
    )
    machine = relax.VirtualMachine(executable, tvm.cpu())
    results = machine["main"](*[tvm.runtime.tensor(inputs[name]) for name in names])
    tensors = [results] if hasattr(results, "numpy") else list(results)
    return [tensor.numpy() for tensor in tensors]


def difference(got: list[np.ndarray], expected: list[np.ndarray]) -> str:
    """What is wrong with the results; empty if nothing is."""
    if len(got) != len(expected):
        return f"{len(got)} results, {len(expected)} expected"
    for index, (value, reference) in enumerate(zip(got, expected, strict=True)):
        if value.dtype != reference.dtype or value.shape != reference.shape:
            return (
                f"result {index} is {value.dtype} {value.shape}, "
                f"not {reference.dtype} {reference.shape}"
            )
        half = reference.dtype.itemsize <= 2
        rtol, atol = (2e-2, 1e-2) if half else (1e-3, 1e-6)
        finite = np.abs(reference[np.isfinite(reference)].astype(np.float64))
        atol *= max(1.0, finite.max(initial=0.0))  # what cancels leaves errors of what was there
        near = np.isclose(
            value.astype(np.float64), reference.astype(np.float64), rtol, atol, equal_nan=True
        )
        if reference.dtype.kind in "iub":
            near = value == reference
        if not near.all():
            place = tuple(int(i) for i in np.argwhere(~near)[0])
            return (
                f"result {index}: {int((~near).sum())} of {near.size} differ; at {place} "
                f"{value[place]}, not {reference[place]}"
            )
    return ""
