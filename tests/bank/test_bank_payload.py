"""Compressed texts: whatever the bytes, a text comes back unchanged or `BankError` is raised."""

from __future__ import annotations

import sqlite3
import tracemalloc
from pathlib import Path

import pytest
import zstandard
from bank_records import make_record
from hypothesis import given
from hypothesis import strategies as st

from tunebank.bank import SqlBank
from tunebank.bank.payload import MAX_TEXT_BYTES, compress, decompress
from tunebank.errors import BankError

TEXT = "".join(f'{{"line": {number}}}\n' for number in range(400))
FRAME = compress(TEXT)


@given(st.text(st.characters(codec="utf-8")))
def test_round_trip(text: str) -> None:
    assert decompress(compress(text), what="a text") == text


def test_a_frame_without_checksum_still_reads() -> None:
    old = zstandard.ZstdCompressor(level=9).compress(TEXT.encode())
    assert decompress(old, what="a text") == TEXT


@given(st.integers(0, len(FRAME) - 1))
def test_a_frame_that_was_cut_off(size: int) -> None:
    with pytest.raises(BankError, match="a text: damaged"):
        decompress(FRAME[:size], what="a text")


@given(st.integers(0, 8 * len(FRAME) - 1))
def test_a_flipped_bit_never_gives_another_text(bit: int) -> None:
    damaged = bytearray(FRAME)
    damaged[bit // 8] ^= 1 << bit % 8
    try:
        text = decompress(bytes(damaged), what="a text")
    except BankError:
        return
    assert text == TEXT, "a bit that has no meaning"


@given(st.binary(max_size=200))
def test_bytes_of_any_kind(data: bytes) -> None:
    with pytest.raises(BankError):
        decompress(b"\0" + data, what="a text")
    with pytest.raises(BankError):
        decompress(FRAME + b"\0" + data, what="a text")
    with pytest.raises(BankError):
        decompress(FRAME[:8] + data, what="a text")


@pytest.mark.parametrize("value", [None, "text", 5])
def test_what_is_not_bytes(value: object) -> None:
    with pytest.raises(BankError):
        decompress(value, what="a text")  # type: ignore[arg-type]


def test_a_frame_that_grows_without_end_allocates_nothing() -> None:
    bomb = zstandard.compress(bytes(MAX_TEXT_BYTES + 1))
    # A frame header (RFC 8878, section 3.1.1) that states a size of 2**62 bytes.
    huge = zstandard.FRAME_HEADER + b"\xe0" + (2**62).to_bytes(8, "little") + bytes(8)
    # As written by a stream: without any size.
    stream = zstandard.ZstdCompressor().compressobj()
    sizeless = stream.compress(bytes(MAX_TEXT_BYTES + 1)) + stream.flush()
    tracemalloc.start()
    try:
        for frame in (bomb, huge, sizeless):
            with pytest.raises(BankError):
                decompress(frame, what="a text")
        assert tracemalloc.get_traced_memory()[1] < MAX_TEXT_BYTES // 4
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("table", "column"), [("kernels", "ir"), ("records", "trace")])
def test_a_cut_payload_in_a_bank_names_the_bank_and_the_row(
    tmp_path: Path, table: str, column: str
) -> None:
    path = tmp_path / "bank.db"
    record = make_record(kernel_ir=TEXT)
    with SqlBank(str(path)) as bank:
        bank.deposit([record])
    connection = sqlite3.connect(path)
    connection.execute(f"UPDATE {table} SET {column} = substr({column}, 1, length({column}) - 6)")
    connection.commit()
    connection.close()
    row = record.kernel_key if table == "kernels" else record.id
    with SqlBank(str(path)) as bank, pytest.raises(BankError) as caught:
        bank.find()
    message = str(caught.value)
    assert all(part in message for part in (str(path), row, "restore"))
    assert "\n" not in message
