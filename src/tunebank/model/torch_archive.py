"""Reading a `.pt2` archive without PyTorch's loader: nothing in it is unpickled or run.

An archive of `torch.export.save` is a ZIP file of uncompressed records:

    <root>/archive_format                          pt2
    <root>/models/model.json                       the program
    <root>/data/weights/weight_0 ...               raw bytes of tensors
    <root>/data/weights/model_weights_config.json  which tensor lies where
    <root>/data/constants/tensor_0 ...             the same for constants
    <root>/data/sample_inputs/model.pt             pickled, and never read here
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunebank.errors import ModelError
from tunebank.model.torch_screen import ScreenError, screened

_MAX_TEXT_BYTES = 1 << 29
_SAVE_AGAIN = "save it again with `torch.export.save` of PyTorch 2.8 or newer"


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies in the archive; several may share a record.

    Attributes:
        record: the record's name.
        dtype: PyTorch's number for its data type, as archives have it.
        shape: extents.
        strides: in elements.
        offset: of its first element in the record, in elements.
        is_parameter: whether it is a parameter, and not a buffer.
    """

    record: str
    dtype: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    is_parameter: bool


@dataclass(frozen=True)
class TorchArchive:
    """A `.pt2` file, its texts screened.

    Attributes:
        path: the file.
        program: the program, see `torch_screen`.
        weights: parameters and buffers, by name.
        constants: other tensors, by name.
    """

    path: Path
    program: Mapping[str, Any]
    weights: Mapping[str, StoredTensor]
    constants: Mapping[str, StoredTensor]

    def records(self) -> Iterator[tuple[str, bytearray]]:
        """The bytes of each record that a tensor lies in.

        Raises:
            ModelError: a record is missing or damaged.
        """
        named = {t.record for t in (*self.weights.values(), *self.constants.values())}
        with _readable(self.path), zipfile.ZipFile(self.path) as file:
            for name in sorted(named):
                yield name, bytearray(file.read(name))


def read_archive(path: Path) -> TorchArchive:
    """Reads the texts of a `.pt2` file and checks them.

    Raises:
        ModelError: no such file, not an archive of `torch.export.save`, damaged, or one that
            could run code.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file; give the path of a model")
    with _readable(path), zipfile.ZipFile(path) as file:
        root, name = _program_of(path, file)
        program = screened(_json(file, f"{root}models/{name}.json"))
        weights = _stored(file, f"{root}data/weights/", f"{name}_weights_config.json")
        constants = _stored(file, f"{root}data/constants/", f"{name}_constants_config.json")
    return TorchArchive(path, program, weights, constants)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns what a damaged or hostile file leads to into one line."""
    try:
        yield
    except ScreenError as error:
        raise ModelError(f"{path}: refused: it has {error}; export the model again") from error
    except zipfile.BadZipFile as error:
        raise ModelError(
            f"{path}: not a `.pt2` file, or a damaged one ({error}); {_SAVE_AGAIN}"
        ) from error
    except (
        ArithmeticError, AttributeError, EOFError, LookupError, NotImplementedError, OSError,
        RecursionError, RuntimeError, TypeError, ValueError,
    ) as error:  # fmt: skip
        reason = " ".join(f"{type(error).__name__} {error}".split())[:200]
        raise ModelError(f"{path}: damaged `.pt2` file ({reason}); {_SAVE_AGAIN}") from error


def _program_of(path: Path, file: zipfile.ZipFile) -> tuple[str, str]:
    """The archive's root folder with its slash, and the name of its one program."""
    names = file.namelist()
    if any(info.compress_type != zipfile.ZIP_STORED for info in file.infolist()):
        raise ModelError(f"{path}: compressed records, which PyTorch never writes; {_SAVE_AGAIN}")
    formats = [n for n in names if n.endswith("/archive_format") and n.count("/") == 1]
    if not formats or file.read(formats[0]) != b"pt2":
        raise ModelError(f"{path}: {_what_else(names)}")
    root = formats[0].removesuffix("archive_format")
    models = [n for n in names if n.startswith(f"{root}models/") and n.endswith(".json")]
    if len(models) != 1:
        raise ModelError(
            f"{path}: holds {len(models)} programs; save one alone with `torch.export.save`"
        )
    return root, models[0].removeprefix(f"{root}models/").removesuffix(".json")


def _what_else(names: list[str]) -> str:
    """What a ZIP file is that is no archive of `torch.export.save`, and what to do."""
    if "serialized_exported_program.json" in names:
        return f"saved by an old PyTorch; {_SAVE_AGAIN}"
    if any("/code/" in name for name in names):
        return "a TorchScript file; export the model with `torch.export.export`"
    if any(name.endswith("/data.pkl") for name in names):
        return "pickled by `torch.save`; export the model with `torch.export.export`"
    return f"a ZIP file that is no `.pt2` file; {_SAVE_AGAIN}"


def _json(file: zipfile.ZipFile, name: str) -> Any:
    if file.getinfo(name).file_size > _MAX_TEXT_BYTES:
        raise ValueError(f"{name} is too large")
    return json.loads(file.read(name))


def _stored(file: zipfile.ZipFile, folder: str, config: str) -> dict[str, StoredTensor]:
    """The tensors that a list in the archive names."""
    entries = _json(file, folder + config)["config"]
    return {str(name): _stored_tensor(folder, entry) for name, entry in entries.items()}


def _stored_tensor(folder: str, entry: Mapping[str, Any]) -> StoredTensor:
    if entry["use_pickle"]:
        raise ScreenError("a pickled tensor, which could run code")
    meta = entry["tensor_meta"]
    (offset,) = _integers([meta["storage_offset"]])
    return StoredTensor(
        record=folder + str(entry["path_name"]),
        dtype=int(meta["dtype"]),
        shape=_integers(meta["sizes"]),
        strides=_integers(meta["strides"]),
        offset=offset,
        is_parameter=bool(entry["is_param"]),
    )


def _integers(extents: list[Mapping[str, Any]]) -> tuple[int, ...]:
    found = tuple(extent["as_int"] for extent in extents)
    if not all(isinstance(extent, int) and extent >= 0 for extent in found):
        raise ValueError(f"extents {found}")
    return found
