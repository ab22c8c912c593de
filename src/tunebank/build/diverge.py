"""Which kernel is wrong, if the compiled model is.

The artifact runs once with an instrument on each call of a kernel. On the very arguments that the
artifact's kernel was given, the same kernel runs under its reference schedule, which is right by
its simplicity, and the two results are compared:

    artifact     x ──▶ kernel 1 ──▶ kernel 2 ──▶ ...
                 │        ║            ║               ║ compared
                 └──▶ reference 1  reference 2  ...

So errors of one kernel don't reach the comparison of the next, nothing is kept but the call at
hand, and a deep model takes no more memory than a shallow one. Where every kernel agrees with its
reference, it is the graph that differs from the model file: it was read or rewritten wrongly, and
`agreement.py` tells from which of its nodes on.

Packed weights are the one argument that differs: the reference kernel takes the model's constant.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tvm
from tvm import ir, tirx
from tvm.runtime.vm import VirtualMachine

from tunebank import _tvm
from tunebank.build.agreement import Print, first_unaccounted
from tunebank.build.place import symbol_of
from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.measure.compare import Array, Difference, difference
from tunebank.measure.rounding import rounding_variance
from tunebank.model import Model, called_name, kernel_calls, main_functions
from tunebank.runtime.feed import Feed
from tunebank.runtime.manifest import KernelEntry, Manifest, read_manifest
from tunebank.schedule.reference import reference_module

_SUSPECT_SHARE = 0.1
"""Beside a kernel that is off a thousandfold, one a little past its tolerance is no suspect."""


@dataclass(frozen=True)
class Divergence:
    """The first kernel that computes something else than its reference schedule.

    Attributes:
        kernel: its name; "" if none does.
        kernel_key: its identity.
        class_key: its class.
        call: the number of the call in a run, counted from 1.
        difference: how far its results are off.
        source: the model that its schedule was tuned for; "" for a default schedule.
        record_id: the record of its schedule; "" for a default schedule.
        calls: how many calls of kernels the run made.
        unknown: how many of these could not be told from another kernel's, and were not compared.
        node: the node of the ONNX file from which on no result is found among the kernels'; "" if a
            kernel diverges, or it is not known.
    """

    kernel: str = ""
    kernel_key: str = ""
    class_key: str = ""
    call: int = 0
    difference: Difference = field(default_factory=Difference)
    source: str = ""
    record_id: str = ""
    calls: int = 0
    unknown: int = 0
    node: str = ""

    def __str__(self) -> str:
        if not self.kernel and not self.unknown:
            node = f" from ONNX node {self.node} on" if self.node else ""
            return f"every kernel agrees with its reference schedule, the graph is at fault{node}"
        if not self.kernel:
            return f"no diverging kernel found, {self.unknown} of {self.calls} calls not compared"
        schedule = f"schedule of {self.source}, " if self.source else "default schedule"
        record = f"record {self.record_id}" if self.record_id else ""
        return f"first diverging kernel: {self.kernel} #{self.call} ({schedule}{record})"


@dataclass(frozen=True)
class _Call:
    """A call of a kernel in the graph.

    Attributes:
        names: what its program may be called in the artifact.
        kernel: the kernel.
        constants: the constants among its arguments, by position.
        inputs: how many arguments it has.
    """

    names: tuple[str, str]
    kernel: Kernel
    constants: Mapping[int, Any]
    inputs: int


@dataclass(frozen=True)
class _Suspect:
    """A call whose results are further off than rounding explains."""

    call: int
    kernel: Kernel
    difference: Difference
    excess: float


def first_divergence(
    model: Model, device: Device, folder: Path, feed: Feed, *, function: str = "main"
) -> Divergence:
    """Finds the first kernel of an artifact whose results are wrong.

    Args:
        model: what the artifact was compiled from.
        device: what it was compiled for.
        folder: the artifact.
        feed: inputs on which its outputs are wrong.
        function: which of the artifact's functions.

    Raises:
        Exception: TVM can't load or run the artifact; raised by its C++ side.
    """
    manifest = read_manifest(folder)
    machine = _machine(folder, manifest)
    inspector = _Inspector(_calls(model, function), device)
    machine.set_instrument(inspector.on_call)
    arguments = [tvm.runtime.tensor(feed[spec.name]) for spec in manifest.inputs]
    with _tvm.running_on(device.threads):
        machine[function](*arguments)
    suspect = inspector.first_suspect()
    if suspect is None:
        node = _first_unaccounted(model, feed, inspector.prints)
        return Divergence(calls=inspector.calls, unknown=inspector.unknown, node=node)
    entry = _entry(manifest, suspect.kernel)
    return Divergence(
        kernel=suspect.kernel.name,
        kernel_key=suspect.kernel.key,
        class_key=suspect.kernel.class_key,
        call=suspect.call,
        difference=suspect.difference,
        source=entry.source if entry is not None else "",
        record_id=entry.record_id if entry is not None else "",
        calls=inspector.calls,
        unknown=inspector.unknown,
    )


class _Inspector:
    """Sees every call that the virtual machine makes, and compares the kernels'."""

    def __init__(self, expected: Sequence[_Call], device: Device) -> None:
        self._expected = expected
        self._target = tvm.target.Target(json.loads(device.target))
        self._position = 0
        self._programs: dict[str, Any] = {}
        self._suspects: list[_Suspect] = []
        self.calls = 0
        self.unknown = 0
        self.prints: list[Print] = []

    def on_call(self, func: Any, symbol: str, before: bool, result: Any, *args: Any) -> int:
        """The instrument; see TVM's `VirtualMachine.set_instrument`. Returns: go on."""
        if before or symbol.startswith("vm."):
            return 0
        self.calls += 1
        call = self._aligned(symbol, len(args))
        if call is None:
            self.unknown += 1
            return 0
        found, excess = self._compare(call, args)
        if excess > 1.0:
            self._suspects.append(_Suspect(self.calls, call.kernel, found, excess))
        return 0

    def first_suspect(self) -> _Suspect | None:
        """The first call that is off about as far as the worst."""
        worst = max((suspect.excess for suspect in self._suspects), default=0.0)
        least = _SUSPECT_SHARE * worst if math.isfinite(worst) else worst
        return next((s for s in self._suspects if s.excess >= least), None)

    def _aligned(self, symbol: str, arguments: int) -> _Call | None:
        """The call of the graph that this is; calls that only reshape are not made at all."""
        for position in range(self._position, len(self._expected)):
            call = self._expected[position]
            if symbol in call.names and arguments > call.inputs:
                self._position = position + 1
                return call
        return None

    def _compare(self, call: _Call, args: Sequence[Any]) -> tuple[Difference, float]:
        inputs = [call.constants.get(i, args[i]) for i in range(call.inputs)]
        outputs = args[call.inputs :]
        expected = [tvm.runtime.empty(tuple(o.shape), str(o.dtype)) for o in outputs]
        self._program(call.kernel)(*inputs, *expected)
        rounding = math.sqrt(2.0 * rounding_variance(call.kernel.func))
        actual = [_array(output) for output in outputs]
        self.prints.extend(one for one in map(Print.of, actual) if one is not None)
        found = [difference(a, _array(e)) for a, e in zip(actual, expected, strict=True)]
        worst = max(found, key=lambda one: one.excess(rounding))
        return worst, worst.excess(rounding)

    def _program(self, kernel: Kernel) -> Any:
        if kernel.key not in self._programs:
            try:
                built = tirx.build(reference_module(kernel), target=self._target)
            except Exception:  # LLVM takes no vectors of truth values, among others
                built = tirx.build(kernel.module, target=self._target)
            self._programs[kernel.key] = built["main"]
        return self._programs[kernel.key]


def _first_unaccounted(model: Model, feed: Feed, prints: Sequence[Print]) -> str:
    try:
        return first_unaccounted(model.reference, feed, prints) or ""
    except Exception:  # what ONNX Runtime throws: the node stays unknown
        return ""


def _machine(folder: Path, manifest: Manifest) -> VirtualMachine:
    """The artifact's own virtual machine, apart from any session's."""
    read = tvm.get_global_func("ffi.Module.load_from_bytes.relax.VMExecutable")
    executable = read((folder / manifest.program.name).read_bytes())
    executable.import_module(tvm.runtime.load_module(str(folder / manifest.library.name)))
    return VirtualMachine(executable, tvm.cpu())


def _calls(model: Model, function: str) -> list[_Call]:
    """The calls of kernels in the order in which they run."""
    kernels = {kernel.key: kernel for kernel in model.kernels}
    calls = []
    for var in main_functions(model.module):
        for value in kernel_calls(model.module[var]):
            name = called_name(value)
            kernel = kernels[model.kernel_of[name]]
            names = (symbol_of(kernel), name)  # the latter if it was left unscheduled
            if str(var.name_hint) == function:
                fields = list(value.args[1].fields)
                constants = {
                    i: one.value for i, one in enumerate(fields) if isinstance(one, ir.GenericConst)
                }
                calls.append(_Call(names, kernel, constants, len(fields)))
    return calls


def _array(tensor: Any) -> Array:
    return tensor.numpy()  # type: ignore[no-any-return]


def _entry(manifest: Manifest, kernel: Kernel) -> KernelEntry | None:
    """What the manifest says of the kernel's schedule."""
    symbol = symbol_of(kernel)
    return next((entry for entry in manifest.kernels if entry.symbol == symbol), None)
