"""Compressed text."""

from __future__ import annotations

import zstandard

from tunebank.errors import BankError

MAX_TEXT_BYTES = 64 * 1024 * 1024
_LEVEL = 9


def compress(text: str) -> bytes:
    """The text as a Zstandard frame."""
    return zstandard.ZstdCompressor(level=_LEVEL).compress(text.encode())


def decompress(data: bytes, *, what: str) -> str:
    """The text of a frame.

    Args:
        data: a Zstandard frame; one that would grow beyond `MAX_TEXT_BYTES` is refused.
        what: names the text in the error.

    Raises:
        BankError: the frame is damaged or too large.
    """
    try:
        reader = zstandard.ZstdDecompressor().stream_reader(data)
        text = reader.read(MAX_TEXT_BYTES + 1)
        if len(text) > MAX_TEXT_BYTES:
            raise BankError(f"{what}: larger than {MAX_TEXT_BYTES} bytes; the bank is damaged")
        return text.decode()
    except (zstandard.ZstdError, UnicodeDecodeError) as error:
        raise BankError(f"{what}: damaged; restore the bank from a copy") from error
