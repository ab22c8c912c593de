"""The worker process: builds programs, keeps them warm, runs them, checks their numbers.

Started as `python -m tunebank.measure.worker THREADS`. It answers requests on standard input
one at a time and ends when its parent does. Programs come as TVM's JSON: nothing is unpickled.

    build      {ticket, module, target, indices}          → {build_seconds, ...}
    run        {ticket, runs}                             → {samples_us, run_seconds}
    reference  {file, module, outputs, target, indices}   → {}
    check      {file, ticket, outputs, rounding}          → {agrees, said}
    object     {file, module, target}            → {}
    drop       {tickets}                                  → {}

`indices` are the positions of the parameters that are used as indices.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tunebank import _tvm
from tunebank._processes import follow_parent, own_channel
from tunebank.measure.arguments import random_argument
from tunebank.measure.caches import BEFORE_RUN, Caches
from tunebank.measure.compare import difference
from tunebank.measure.packing import Packing, packings
from tunebank.measure.protocol import Message, read_message, write_message

Array = np.ndarray[Any, Any]
_Parameter = tuple[str, tuple[int, ...]]

_WARM_UP_RUNS = 1
_MAX_ARRAY_BYTES = 512 * 1024**2


@dataclass(frozen=True)
class _Program:
    """A built program, its parameters, those that are indices, and how weights are packed."""

    run: Any
    target: str
    indices: list[int]
    parameters: list[_Parameter]
    plain_parameters: list[_Parameter]
    packings: list[Packing]


class Worker:
    """State of one worker process: programs by ticket, and argument arrays by size."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._programs: dict[str, _Program] = {}
        self._arrays: dict[tuple[str, int, int, bool], Any] = {}
        self._array_bytes = 0
        self._caches: Caches | None = None

    def handle(self, request: Message) -> Message:
        """Answers one request."""
        operations: dict[str, Callable[[Message], Message]] = {
            "build": self.build,
            "object": self.object,
            "run": self.run,
            "reference": self.reference,
            "check": self.check,
            "drop": self.drop,
        }
        return operations[request["op"]](request)

    def build(self, request: Message) -> Message:
        """Builds a program down to machine code and keeps it."""
        from tvm.s_tir.transform import RemoveWeightLayoutRewriteBlock

        start = time.perf_counter()
        module = _tvm.load_own_json(request["module"])
        # The parameter takes the packed weight's shape: packing is not part of a run.
        stripped = RemoveWeightLayoutRewriteBlock(skip_tensor_rewrite=True)(module)
        run, lower_seconds, codegen_seconds = _build(stripped, request["target"])
        packed = packings(module)
        plain = _parameters(module)
        for one in packed:
            dtype, shape = plain[one.position]
            plain[one.position] = (dtype, one.plain_shape(shape))
        self._programs[request["ticket"]] = _Program(
            run, request["target"], request["indices"], _parameters(stripped), plain, packed
        )
        return {
            "build_seconds": time.perf_counter() - start,
            "lower_seconds": lower_seconds,
            "codegen_seconds": codegen_seconds,
        }

    def object(self, request: Message) -> Message:
        """Builds programs as they are, into an object file."""
        from tvm import tirx
        from tvm.target import Target

        module = _tvm.load_own_json(request["module"])
        target = Target(json.loads(request["target"]))
        tirx.build(module, target=target).write_to_file(request["file"])
        return {}

    def run(self, request: Message) -> Message:
        """Times a built program, with the caches as it finds them in a model."""
        import tvm

        program = self._programs[request["ticket"]]
        arrays = [
            self._array(*spec, position, position in program.indices)
            for position, spec in enumerate(program.parameters)
        ]
        start = time.perf_counter()
        self._caches = self._caches or Caches(program.target, self._threads)
        self._caches.expect(arrays)
        timer = program.run.time_evaluator(
            "main",
            tvm.cpu(),
            number=1,
            repeat=int(request["runs"]) + _WARM_UP_RUNS,
            f_preproc=BEFORE_RUN,
        )
        with _tvm.running_on(self._threads):
            seconds = list(timer(*arrays).results)[_WARM_UP_RUNS:]
        return {
            "samples_us": [1e6 * value for value in seconds],
            "run_seconds": time.perf_counter() - start,
        }

    def reference(self, request: Message) -> Message:
        """Runs a kernel's reference schedule and keeps its results in a file."""
        module = _tvm.load_own_json(request["module"])
        run, _, _ = _build(module, request["target"])
        results = _results(
            run, _inputs(_parameters(module), request["indices"]), request["outputs"]
        )
        with Path(request["file"]).open("wb") as file:
            np.savez(file, *results)
        return {}

    def check(self, request: Message) -> Message:
        """Compares a program's results with those of the kernel's reference schedule."""
        start = time.perf_counter()
        program = self._programs[request["ticket"]]
        inputs = _inputs(program.plain_parameters, program.indices)
        for packing in program.packings:
            inputs[packing.position] = packing.apply(inputs[packing.position])
        actual = _results(program.run, inputs, request["outputs"])
        with np.load(request["file"], allow_pickle=False) as reference:
            expected = [reference[name] for name in reference.files]
        rounding = float(request["rounding"])
        found = [difference(a, e) for a, e in zip(actual, expected, strict=True)]
        worst = max(found, key=lambda one: one.excess(rounding))
        return {
            "agrees": worst.excess(rounding) <= 1.0,
            "said": worst.flaw or f"by {worst.max_abs:.3g}, {worst.largest:.3g} of the largest",
            "check_seconds": time.perf_counter() - start,
        }

    def drop(self, request: Message) -> Message:
        """Forgets programs."""
        for ticket in request["tickets"]:
            self._programs.pop(ticket, None)
        return {}

    def _array(self, dtype: str, shape: tuple[int, ...], position: int, is_index: bool) -> Any:
        """A random argument; kept, since drawing it takes longer than a run."""
        import tvm

        size = math.prod(shape)  # a weight has many shapes, one for each way of packing it
        key = (dtype, size, position, is_index)
        if key not in self._arrays:
            array = random_argument(dtype, (size,), position, is_index=is_index)
            self._array_bytes += array.nbytes
            if self._array_bytes > _MAX_ARRAY_BYTES:
                self._arrays, self._array_bytes = {}, array.nbytes
            self._arrays[key] = tvm.runtime.tensor(array)
        return _tvm.view(self._arrays[key], shape)


def _build(module: Any, target: str) -> tuple[Any, float, float]:
    """The built module, seconds to lower it, seconds to make machine code of it."""
    from tvm import tirx
    from tvm.target import Target

    start = time.perf_counter()
    program = tirx.build(module, target=Target(json.loads(target)))
    lowered = time.perf_counter()
    program["main"]  # the just-in-time compiler runs at the first look-up
    return program, lowered - start, time.perf_counter() - lowered


def _inputs(parameters: list[_Parameter], indices: list[int]) -> list[Array]:
    """Random arguments; the same in every process."""
    return [
        random_argument(*spec, position, is_index=position in indices)
        for position, spec in enumerate(parameters)
    ]


def _results(run: Any, inputs: list[Array], outputs: list[int]) -> list[Array]:
    """What a program writes into the parameters at these positions."""
    import tvm

    arrays = [tvm.runtime.tensor(array) for array in inputs]
    run["main"](*arrays)
    return [_storable(arrays[position].numpy()) for position in outputs]


def _storable(array: Array) -> Array:
    """The array in a data type that a .npz file can say: numpy knows bfloat16 as raw bytes."""
    return array if array.dtype.kind in "biuf" else array.astype(np.float32)


def _parameters(module: Any) -> list[_Parameter]:
    """Data type and shape of each parameter of the module that was built."""
    (func,) = (func for _, func in module.functions_items())
    return [
        (str(param.dtype), tuple(int(extent) for extent in param.shape)) for param in func.params
    ]


def serve(threads: int) -> None:
    """Answers requests until the parent closes the stream."""
    follow_parent()
    requests, answers = own_channel()
    _tvm.prepare(threads=threads)
    worker = Worker(threads)
    write_message(answers, {"ready": True})
    while (request := read_message(requests)) is not None:
        try:
            answer = worker.handle(request)
        except Exception as error:  # whatever TVM's C++ side threw is this candidate's failure
            lines = str(error).strip().splitlines() or [type(error).__name__]
            answer = {"error": lines[-1][:500]}
        write_message(answers, answer)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
