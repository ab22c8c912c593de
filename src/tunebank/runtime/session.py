"""Running an artifact, in the manner of ONNX Runtime's `InferenceSession`."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tunebank import _tvm
from tunebank.errors import ArtifactError, UsageError
from tunebank.runtime.manifest import Manifest, Tensor, check_loadable, read_manifest

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class _Input:
    """An input: what it must be, TVM's tensor, and the same memory as an array."""

    spec: Tensor
    dtype: np.dtype[Any]
    tensor: Any
    array: Array


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
        self._main = _load(folder, self.manifest, self.threads)
        self._inputs = {spec.name: _input(spec) for spec in self.manifest.inputs}
        self._tensors = [entry.tensor for entry in self._inputs.values()]
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
            feed: by input name an array of the input's shape and data type; it need not be
                contiguous.

        Returns:
            arrays that are the caller's own.

        Raises:
            UsageError: an input is missing, unknown, or of another shape or data type, or
                there is no output of that name.
        """
        positions = self._output_positions(output_names)
        with self._lock:
            self._take(feed)
            with _tvm.running_on(self.threads):
                result = self._main(*self._tensors)
            results = [result] if hasattr(result, "numpy") else list(result)
            return [results[position].numpy() for position in positions]

    def _take(self, feed: Mapping[str, npt.ArrayLike]) -> None:
        """Copies the arrays to where the kernels read them: aligned, and never the caller's."""
        if len(feed) != len(self._inputs):
            self._reject_names(feed)
        for name, given in feed.items():
            entry = self._inputs.get(name)
            if entry is None:
                self._reject_names(feed)
                continue
            array = np.asarray(given)
            if array.shape != entry.array.shape:
                raise UsageError(
                    f"input {name!r} has shape {array.shape}, the model takes {entry.spec.shape}"
                )
            if array.dtype != entry.dtype:
                raise UsageError(
                    f"input {name!r} is of {array.dtype}, the model takes {entry.spec.dtype}; "
                    f'convert it with .astype("{entry.spec.dtype}")'
                )
            np.copyto(entry.array, array)

    def _reject_names(self, feed: Mapping[str, npt.ArrayLike]) -> None:
        unknown = [name for name in feed if name not in self._inputs]
        missing = [name for name in self._inputs if name not in feed]
        said = f"no input {unknown[0]!r}" if unknown else f"input {missing[0]!r} is missing"
        raise UsageError(f"{said}; inputs: {', '.join(self._inputs)}")

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
    """The artifact's main function."""
    _tvm.prepare(threads=threads)
    import tvm
    from tvm.runtime.vm import VirtualMachine

    read = tvm.get_global_func("ffi.Module.load_from_bytes.relax.VMExecutable")
    try:
        # From bytes it takes a third of the time that TVM takes to read the file itself.
        executable = read((folder / manifest.program.name).read_bytes())
        executable.import_module(tvm.runtime.load_module(str(folder / manifest.library.name)))
        return VirtualMachine(executable, tvm.cpu())["main"]
    except Exception as error:  # TVM raises whatever its C++ side threw
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ArtifactError(
            f"{folder}: TVM can't load it: {lines[-1][:300]}; compile the model again"
        ) from error


def _input(spec: Tensor) -> _Input:
    import tvm

    tensor = tvm.runtime.empty(tuple(spec.shape), spec.dtype)
    return _Input(spec, np.dtype(spec.dtype), tensor, np.from_dlpack(tensor))
