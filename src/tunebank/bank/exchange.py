"""Import and export: tunebank's own file format, and other tuners' databases.

The format is JSON lines in a Zstandard frame: a header, then one object per record. A kernel's
program stands in the first record that needs it, so that it is written once. The last line
counts the records: Zstandard does not report a file that was cut off between two lines.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import zstandard

from tunebank.bank.bank import Bank
from tunebank.bank.metaschedule import read_metaschedule
from tunebank.bank.record import Record
from tunebank.bank.sql import SqlBank
from tunebank.errors import BankError

FORMAT = "tunebank-records"
FORMAT_VERSION = 1
_METASCHEDULE = "metaschedule:"
_COUNT = "record_count"
_MAX_LINE_CHARACTERS = 64 * 1024 * 1024
_UNREADABLE = (
    OSError,
    zstandard.ZstdError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    RecursionError,
)
"""What reading a damaged file can raise."""


@dataclass(frozen=True)
class ImportResult:
    """What an import did.

    Attributes:
        read: records read.
        new: records that the bank did not have.
        failed: records read whose measurement had failed.
        invalid: why each line that was left out could not be read.
    """

    read: int
    new: int
    failed: int
    invalid: tuple[str, ...] = ()

    @property
    def duplicate(self) -> int:
        """Records read that the bank had, or that came twice."""
        return self.read - self.new


def import_records(
    bank: Bank,
    origin: str,
    *,
    source: str | None = None,
    device: str = "unknown",
    tvm_version: str = "unknown",
    skip_invalid: bool = False,
) -> ImportResult:
    """Brings records into a bank: all or none.

    Args:
        bank: where they go.
        origin: `metaschedule:DIR`, an exported file, or another bank.
        source: for a MetaSchedule database, the model that it was tuned for.
        device: for a MetaSchedule database, the device that it was tuned on.
        tvm_version: for a MetaSchedule database, the TVM that it was tuned with.
        skip_invalid: leaves out lines of a MetaSchedule database that can't be read.

    Raises:
        BankError: the origin can't be read.
    """
    invalid: list[str] = []
    if origin.startswith(_METASCHEDULE):
        folder = Path(origin.removeprefix(_METASCHEDULE))
        about: dict[str, Any] = {"source": source, "device": device, "tvm_version": tvm_version}
        if skip_invalid:
            about["on_invalid"] = lambda error: invalid.append(str(error))
        records = list(read_metaschedule(folder, **about))
    elif Path(origin).is_file() and _is_export(Path(origin)):
        records = list(read_export(Path(origin)))
    else:
        with SqlBank(origin, readonly=True) as other:
            records = other.find(status=None)
    failed = sum(record.status != "ok" for record in records)
    return ImportResult(len(records), bank.deposit(records), failed, tuple(invalid))


def write_export(path: Path, records: Iterable[Record]) -> int:
    """Writes records to a file, whole or not at all; returns how many.

    Raises:
        BankError: the file can't be written.
    """
    count = 0
    partial = path.with_name(path.name + ".partial")
    compressor = zstandard.ZstdCompressor(level=12)
    try:
        with partial.open("wb") as raw, compressor.stream_writer(raw) as out:
            out.write(_line({"format": FORMAT, "schema_version": FORMAT_VERSION}))
            written: set[str] = set()
            for record in records:
                row = asdict(record)
                if record.kernel_key in written:
                    del row["kernel_ir"]
                written.add(record.kernel_key)
                out.write(_line(row))
                count += 1
            out.write(_line({_COUNT: count}))
        partial.replace(path)
    except OSError as error:
        raise BankError(f"{path}: can't be written: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    return count


def read_export(path: Path) -> Iterator[Record]:
    """The records of an exported file.

    Raises:
        BankError: not such a file, cut off, or of a newer format.
    """
    try:
        with path.open("rb") as raw:
            reader = zstandard.ZstdDecompressor().stream_reader(raw)
            lines = io.TextIOWrapper(reader, encoding="utf-8")
            _check_header(path, lines.readline(_MAX_LINE_CHARACTERS))
            yield from _rows(lines)
    except _UNREADABLE as error:
        raise BankError(f"{path}: not an export of a bank, or cut off; export it again") from error


def _rows(lines: io.TextIOWrapper) -> Iterator[Record]:
    programs: dict[str, str] = {}
    count = 0
    while text := lines.readline(_MAX_LINE_CHARACTERS):
        row = json.loads(text)
        if _COUNT in row:
            if row[_COUNT] != count:
                raise ValueError("records are missing")
            return
        key = row["kernel_key"]
        if "kernel_ir" in row:
            programs.setdefault(key, row["kernel_ir"])
        row |= {"kernel_ir": programs[key], "samples_us": tuple(row["samples_us"])}
        yield Record(**row)
        count += 1
    raise ValueError("cut off")


def _check_header(path: Path, text: str) -> None:
    header = json.loads(text)
    if header.get("format") != FORMAT:
        raise ValueError("another format")
    if header.get("schema_version", 0) > FORMAT_VERSION:
        raise BankError(
            f"{path}: written by a newer tunebank; upgrade it (pip install -U tunebank)"
        )


def _is_export(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(len(zstandard.FRAME_HEADER))
    except OSError as error:
        raise BankError(f"{path}: can't be read: {error.strerror}") from error
    return start == zstandard.FRAME_HEADER


def _line(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
