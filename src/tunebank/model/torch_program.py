"""A `.pt2` archive as a program of PyTorch.

PyTorch's deserialiser gets the screened text, and tensors made from raw bytes; its own loader,
which unpickles, is not used. It is private to PyTorch, whose version is exact for that reason.
"""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunebank.errors import MissingExtraError, ModelError
from tunebank.model.torch_archive import StoredTensor, TorchArchive, read_archive
from tunebank.model.torch_screen import operator_names


def load_program(path: Path) -> Any:
    """The `torch.export.ExportedProgram` of a `.pt2` file; no code of the file runs.

    Inputs and outputs are flat: it takes all tensors by position and gives a tuple.

    Raises:
        ModelError: not such a file, a damaged one, or one that could run code.
        MissingExtraError: PyTorch is not installed.
    """
    require_torch()
    archive = read_archive(path)
    try:
        with quiet():
            _check_operators(archive)
            return _deserialised(archive)
    except ModelError:
        raise
    except Exception as error:  # PyTorch raises whatever it likes on what it doesn't expect
        raise ModelError(
            f"{path}: PyTorch can't read the program: {first_line(error)}; "
            "save it again with this version of PyTorch"
        ) from error


def require_torch() -> None:
    """Makes sure that PyTorch and its ONNX exporter are there.

    Raises:
        MissingExtraError: one of them is not installed.
    """
    try:
        import onnxscript  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"reading PyTorch models needs {error.name}; run `pip install 'tunebank[torch]'`"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps PyTorch's remarks for its developers off the terminal."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def first_line(error: BaseException) -> str:
    """What an exception says, in one line, from its innermost cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}"[:300] if lines else type(error).__name__


def _check_operators(archive: TorchArchive) -> None:
    """Each operator must be one in truth: names alone could mean a module or a method."""
    import torch

    for name in sorted(operator_names(archive.program)):
        if not name.startswith("torch.ops."):
            continue
        found = functools.reduce(
            lambda place, part: getattr(place, part, None), name.split(".")[2:], torch.ops
        )
        if not isinstance(found, (torch._ops.OpOverload, torch._ops.HigherOrderOperator)):
            raise ModelError(f"{archive.path}: PyTorch has no operator {name!r}; export it again")


def _deserialised(archive: TorchArchive) -> Any:
    from torch._export.serde import schema, serialize

    tensors = _tensors(archive)
    program = serialize._dict_to_dataclass(schema.ExportedProgram, archive.program)
    return serialize.ExportedProgramDeserializer().deserialize(
        program,
        {name: tensors[name, stored] for name, stored in archive.weights.items()},
        {name: tensors[name, stored] for name, stored in archive.constants.items()},
        None,
    )


def _tensors(archive: TorchArchive) -> Mapping[tuple[str, StoredTensor], Any]:
    """All tensors; those that share a record share its memory."""
    import torch

    records = {
        name: torch.frombuffer(data, dtype=torch.uint8)
        if data
        else torch.empty(0, dtype=torch.uint8)
        for name, data in archive.records()
    }
    stored = [*archive.weights.items(), *archive.constants.items()]
    return {(name, one): _tensor(records[one.record], one) for name, one in stored}


def _tensor(record: Any, stored: StoredTensor) -> Any:
    """A view of a record's bytes."""
    import torch
    from torch._export.serde.serialize import _SERIALIZE_TO_TORCH_DTYPE

    dtype = _SERIALIZE_TO_TORCH_DTYPE[stored.dtype]
    if record.numel() == 0:
        tensor = torch.zeros(stored.shape, dtype=dtype)
    else:
        whole = record.view(dtype)
        tensor = torch.as_strided(whole, stored.shape, stored.strides, stored.offset)
    if stored.is_parameter:
        return torch.nn.Parameter(tensor, requires_grad=False)
    return tensor
