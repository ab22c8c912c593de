"""Running an artifact, in the manner of ONNX Runtime's `InferenceSession`."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tunebank import _tvm
from tunebank.errors import ArtifactError, UsageError
from tunebank.runtime.manifest import (
    Function,
    Manifest,
    Tensor,
    check_loadable,
    read_manifest,
)

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class _Input:
    """An input: what it must be, TVM's tensor, and an array to fill.

    The array is the tensor's own memory, unless numpy has no such type: then it is copied.
    """

    spec: Tensor
    dtype: np.dtype[Any]
    tensor: Any
    array: Array
    is_shared: bool

    def take(self, array: Array) -> None:
        """Copies an array to where the kernels read it."""
        np.copyto(self.array, array)
        if not self.is_shared:
            self.tensor.copyfrom(self.array)


class _Callable:
    """One function of an artifact, with the memory of its inputs."""

    def __init__(self, machine: Any, function: Function) -> None:
        self._main = machine[function.name]
        self._inputs = [_input(spec) for spec in function.inputs]
        self._tensors = [entry.tensor for entry in self._inputs]

    def run(self, arrays: Sequence[Array]) -> list[Any]:
        """Runs on arrays of the right shapes; they are copied: aligned, never the caller's."""
        for entry, array in zip(self._inputs, arrays, strict=True):
            if array.dtype != entry.dtype:
                raise UsageError(
                    f"input {entry.spec.name!r} is of {array.dtype}, the model takes "
                    f'{entry.spec.dtype}; convert it with .astype("{entry.spec.dtype}")'
                )
            entry.take(array)
        result = self._main(*self._tensors)
        return [result] if hasattr(result, "numpy") else list(result)


class Session:
    """An artifact, loaded and ready to run.

        session = Session("resnet50.tuned")
        (scores,) = session.run(None, {"x": image})

    Opening one runs the artifact's code: open only artifacts whose maker you trust. Several
    threads may share a session; their runs take turns.

    Args:
        path: the artifact's folder.
        threads: threads to run on; None takes those that it was tuned for.

    Attributes:
        manifest: what the artifact says of itself.

    Raises:
        ArtifactError: not an artifact, damaged, or not for this machine.
        UsageError: more threads than the machine has processors, or fewer than one.
    """

    def __init__(self, path: str | os.PathLike[str], *, threads: int | None = None) -> None:
        folder = Path(path)
        self.manifest: Manifest = read_manifest(folder)
        check_loadable(folder, self.manifest)
        self.threads = self.manifest.threads if threads is None else threads
        if not 1 <= self.threads <= (os.cpu_count() or 1):
            raise UsageError(
                f"{folder}: can't run on {self.threads} threads, this machine has 1 to "
                f"{os.cpu_count()} to give; choose with threads="
            )
        self._lock = threading.Lock()
        self._machine = _load(folder, self.manifest, self.threads)
        self._names = [spec.name for spec in self.manifest.inputs]
        self._callables: dict[tuple[tuple[int, ...], ...], _Callable] = {}
        self._positions = {spec.name: i for i, spec in enumerate(self.manifest.outputs)}

    def get_inputs(self) -> list[Tensor]:
        """The inputs in order: name, shape, type."""
        return list(self.manifest.inputs)

    def get_outputs(self) -> list[Tensor]:
        """The outputs in order: name, shape, type."""
        return list(self.manifest.outputs)

    def run(
        self, output_names: Sequence[str] | None, feed: Mapping[str, npt.ArrayLike]
    ) -> list[Array]:
        """Runs the model once.

        Args:
            output_names: outputs to return, in this order; None returns all.
            feed: by input name an array of the input's data type, and of a shape that the model
                was compiled for; it need not be contiguous.

        Returns:
            arrays that are the caller's own.

        Raises:
            UsageError: an input is missing, unknown, or of another shape or data type, or
                there is no output of that name.
        """
        positions = self._output_positions(output_names)
        if len(feed) != len(self._names) or not all(name in feed for name in self._names):
            self._reject_names(feed)
        arrays = [np.asarray(feed[name]) for name in self._names]
        with self._lock:
            function = self._callable(arrays)
            with _tvm.running_on(self.threads):
                results = function.run(arrays)
            # `Tensor.numpy` copies, too, and takes several microseconds longer.
            return [_tvm.array_view(results[position]).copy() for position in positions]

    def _callable(self, arrays: Sequence[Array]) -> _Callable:
        """The function for arrays of these shapes.

        Raises:
            UsageError: there is none.
        """
        shapes = tuple(array.shape for array in arrays)
        if shapes not in self._callables:
            named = dict(zip(self._names, shapes, strict=True))
            function = self.manifest.function_for(named)
            if function is None:
                raise UsageError(self._shapes_text(named))
            self._callables[shapes] = _Callable(self._machine, function)
        return self._callables[shapes]

    @contextmanager
    def instrumented(self, on_call: Callable[..., int]) -> Iterator[None]:
        """Inside, something is called before and after each call that the machine makes.

        Args:
            on_call: see TVM's `VirtualMachine.set_instrument`.
        """
        self._machine.set_instrument(on_call)
        try:
            yield
        finally:
            self._machine.set_instrument(None)

    def _shapes_text(self, given: Mapping[str, tuple[int, ...]]) -> str:
        """Which shapes were given, and which there are."""
        functions = self.manifest.functions
        if len(functions) == 1:
            specs = functions[0].inputs
            spec = next(spec for spec in specs if given[spec.name] != spec.shape)
            return f"input {spec.name!r} has shape {given[spec.name]}, the model takes {spec.shape}"
        wanted = ", ".join(f"{name} {shape}" for name, shape in given.items())
        there = "; ".join(
            ", ".join(f"{spec.name} {spec.shape}" for spec in function.inputs)
            for function in functions
        )
        return f"not compiled for {wanted}; it is for {there}; compile it with more --input-shape"

    def _reject_names(self, feed: Mapping[str, npt.ArrayLike]) -> None:
        unknown = [name for name in feed if name not in self._names]
        missing = [name for name in self._names if name not in feed]
        said = f"no input {unknown[0]!r}" if unknown else f"input {missing[0]!r} is missing"
        raise UsageError(f"{said}; inputs: {', '.join(self._names)}")

    def _output_positions(self, names: Sequence[str] | None) -> list[int]:
        if names is None:
            return list(self._positions.values())
        for name in names:
            if name not in self._positions:
                raise UsageError(f"no output {name!r}; outputs: {', '.join(self._positions)}")
        return [self._positions[name] for name in names]


def load(path: str | os.PathLike[str], *, threads: int | None = None) -> Session:
    """Opens an artifact; see `Session`."""
    return Session(path, threads=threads)


def _load(folder: Path, manifest: Manifest, threads: int) -> Any:
    """TVM's virtual machine with the artifact's functions."""
    _tvm.prepare(threads=threads)
    import tvm
    from tvm.runtime.vm import VirtualMachine

    read = tvm.get_global_func("ffi.Module.load_from_bytes.relax.VMExecutable")
    try:
        # From bytes it takes a third of the time that TVM takes to read the file itself.
        executable = read((folder / manifest.program.name).read_bytes())
        executable.import_module(tvm.runtime.load_module(str(folder / manifest.library.name)))
        return VirtualMachine(executable, tvm.cpu())
    except Exception as error:  # TVM raises whatever its C++ side threw
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ArtifactError(
            f"{folder}: TVM can't load it: {lines[-1][:300]}; compile the model again"
        ) from error


def _input(spec: Tensor) -> _Input:
    import ml_dtypes  # noqa: F401  makes numpy know bfloat16
    import tvm

    tensor = tvm.runtime.empty(tuple(spec.shape), spec.dtype)
    dtype = np.dtype(spec.dtype)
    try:
        return _Input(spec, dtype, tensor, np.from_dlpack(tensor), is_shared=True)
    except RuntimeError:
        array = np.zeros(tuple(extent or 0 for extent in spec.shape), dtype)
        return _Input(spec, dtype, tensor, array, is_shared=False)
