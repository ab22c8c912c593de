"""Arrays for `tunebank run`: from files, drawn at random, and to files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tunebank.errors import UsageError
from tunebank.runtime.feed import InputLike, numpy_dtype, random_feed

Array = np.ndarray[Any, Any]


def read_array(path: Path) -> Array:
    """The array in a .npy file.

    Raises:
        UsageError: no such file, or no array in it. Python objects are not loaded: that would
            run code from the file.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; give a .npy file") from None
    except (OSError, ValueError, EOFError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UsageError(f"{path}: not an array; write it with numpy.save: {reason[0]}") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise UsageError(f"{path}: an archive of arrays; give one .npy file for each input")
    return array


def feed_for(
    inputs: Sequence[InputLike], given: Mapping[str, Array], *, seed: int | None
) -> dict[str, Array]:
    """The given arrays, and random ones for the inputs that have none.

    Args:
        inputs: what the model takes.
        given: arrays by name.
        seed: of the random arrays; None draws none.

    Raises:
        UsageError: an input has no array.
    """
    missing = [spec for spec in inputs if spec.name not in given]
    if missing and seed is None:
        names = ", ".join(spec.name for spec in missing)
        raise UsageError(f"no array for {names}; give --input NAME=FILE.npy, or --random")
    drawn = random_feed(missing, seed=seed) if seed is not None else {}
    return {name: _as_declared(array, inputs, name) for name, array in given.items()} | drawn


def _as_declared(array: Array, inputs: Sequence[InputLike], name: str) -> Array:
    """The array, in the input's data type where a .npy file can't say it: bfloat16."""
    for spec in inputs:
        dtype = numpy_dtype(spec.dtype)
        if spec.name == name and array.dtype.kind == "V" and array.dtype.itemsize == dtype.itemsize:
            return array.view(dtype)
    return array


def write_arrays(folder: Path, arrays: Mapping[str, Array]) -> dict[str, Path]:
    """Writes arrays into a folder; each file is written whole or not at all.

    Raises:
        UsageError: they can't be written.
    """
    files: dict[str, Path] = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for index, (name, array) in enumerate(arrays.items()):
            path = folder / f"{_file_stem(name) or f'output_{index}'}.npy"
            if path in files.values():
                path = path.with_stem(f"{path.stem}_{index}")
            _write(path, array)
            files[name] = path
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"{folder}: can't be written: {reason}; name another folder") from error
    return files


def _write(path: Path, array: Array) -> None:
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            np.save(file, array, allow_pickle=False)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _file_stem(name: str) -> str:
    """A name from a model file as a name for a file: no folders, nothing hidden."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._")[:100]
