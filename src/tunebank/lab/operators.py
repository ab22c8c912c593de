"""A survey of single operators: which of them compile, and give ONNX Runtime's numbers.

    python -m tunebank.lab.operators --results FILE [--only TEXT] [--again OUTCOME]

The `onnx` package has some 1900 small models, most with one operator. Each that ONNX Runtime runs
is rewritten, imported into TVM, compiled and run, in a process that may crash. Results are
appended to FILE, one JSON object a line; cases that stand there already are not run again. At
the end a table by operator is printed.

Inputs that real models have as constants - shapes, axes, pads, k - are constants here too, since
TVM compiles for fixed shapes.
"""

from __future__ import annotations

import argparse
import json
import select
import subprocess
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

PASSED, WRONG, REFUSED, CRASHED, SKIPPED = "passed", "wrong", "refused", "crashed", "skipped"

_TIMEOUT_SECONDS = 120

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


def main() -> None:
    """Runs the survey, or what is left of it."""
    parser = argparse.ArgumentParser(prog="python -m tunebank.lab.operators", description=__doc__)
    parser.add_argument("--results", type=Path, help="the file of results")
    parser.add_argument("--only", default="", help="cases whose name has this text in it")
    parser.add_argument("--again", default="", help="run cases of this outcome once more")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        _work()
        return
    if options.results is None:
        parser.error("--results FILE is needed")
    results = {result.case: result for result in _read(options.results)}
    todo = [
        name
        for name in _cases()
        if options.only in name and (name not in results or results[name].outcome == options.again)
    ]
    with options.results.open("a") as file:
        for result in survey(todo):
            results[result.case] = result
            file.write(json.dumps(asdict(result)) + "\n")
            file.flush()
            if result.outcome not in (PASSED, SKIPPED):
                sys.stderr.write(f"{result.outcome:8} {result.case}: {result.reason[:150]}\n")
    sys.stdout.write("\n".join(_table(results.values())) + "\n")


def survey(names: Iterable[str]) -> Iterator[Result]:
    """Runs cases one after another in a process that is started again after a crash."""
    worker: subprocess.Popen[str] | None = None
    for name in names:
        if worker is None or worker.poll() is not None:
            worker = _started()
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(name + "\n")
        worker.stdin.flush()
        ready, _, _ = select.select([worker.stdout], [], [], _TIMEOUT_SECONDS)
        line = worker.stdout.readline() if ready else ""
        if line:
            yield Result(**json.loads(line))
            continue
        worker.kill()
        code = worker.wait()
        reason = f"exit code {code}" if ready else f"no result after {_TIMEOUT_SECONDS} s"
        yield Result(name, _operators(_cases()[name].model), CRASHED, reason)
        worker = None
    if worker is not None:
        worker.kill()
        worker.wait()


def _started() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tunebank.lab.operators", "--worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _work() -> None:
    """Reads names of cases, and writes a result for each."""
    out = sys.stdout
    sys.stdout = sys.stderr  # TVM's importer prints to it
    cases = _cases()
    for line in sys.stdin:
        result = _tried(cases[line.strip()])
        out.write(json.dumps(asdict(result)) + "\n")
        out.flush()


_collected: dict[str, Any] = {}


def _cases() -> dict[str, Any]:
    """The cases of the `onnx` package by name; collecting them takes seconds, so once."""
    if not _collected:
        from onnx.backend.test.case.node import collect_testcases

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _collected.update((case.name, case) for case in collect_testcases(None))
    return _collected


def _operators(model: onnx.ModelProto) -> str:
    return "+".join(sorted({node.op_type for node in model.graph.node}))


def _tried(case: Any) -> Result:
    """Compiles and runs one case."""
    operator = _operators(case.model)
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
        base = _cases().get(case.name.split("_expanded")[0])
        model = _with_constants(case.model, given, base.model if base else None)
        got = _compiled_and_run(model, given)
    except Exception as error:  # whatever comes out of TVM is a result here
        return Result(case.name, operator, REFUSED, _line(error))
    reason = _difference(got, expected)
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


def _difference(got: list[np.ndarray], expected: list[np.ndarray]) -> str:
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


def _read(path: Path) -> Iterator[Result]:
    if path.exists():
        for line in path.read_text().splitlines():
            yield Result(**json.loads(line))


def _table(results: Iterable[Result]) -> Iterator[str]:
    """Lines: for each operator how many cases had which outcome, and the first reason."""
    by_operator: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        by_operator[result.operator].append(result)
    columns = (PASSED, WRONG, REFUSED, CRASHED, SKIPPED)
    yield " ".join(f"{column:>8}" for column in columns) + "  operator: first reason"
    total: Counter[str] = Counter()
    for operator, group in sorted(by_operator.items()):
        counts = Counter(result.outcome for result in group)
        total += counts
        bad = [r for r in group if r.outcome not in (PASSED, SKIPPED)]
        reason = f": {bad[0].reason[:120]}" if bad else ""
        numbers = " ".join(f"{counts[column]:8}" for column in columns)
        yield f"{numbers}  {operator[:60]}{reason}"
    yield " ".join(f"{total[column]:8}" for column in columns) + "  all"


if __name__ == "__main__":
    main()
