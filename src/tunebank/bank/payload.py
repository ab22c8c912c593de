"""Compressed text."""

from __future__ import annotations

import zstandard

from tunebank.errors import BankError

MAX_TEXT_BYTES = 64 * 1024 * 1024
_LEVEL = 9


def compress(text: str) -> bytes:
    """The text as a Zstandard frame that states its size and its checksum."""
    return zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compress(text.encode())


def decompress(data: bytes, *, what: str) -> str:
    """The text of a frame.

    Args:
        data: a Zstandard frame; one that would grow beyond `MAX_TEXT_BYTES` is refused before
            anything is allocated for it.
        what: names the text in the error.

    Raises:
        BankError: the frame is damaged, cut off or too large.
    """
    try:
        # `compress` always states the size; without one, the decompressor may not guess.
        size = zstandard.frame_content_size(data)
        if size > MAX_TEXT_BYTES:
            raise BankError(
                f"{what}: larger than {MAX_TEXT_BYTES} bytes, so it is damaged; "
                "restore the bank from a copy"
            )
        decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_TEXT_BYTES)
        text = decompressor.decompress(data, max_output_size=max(size, 0), allow_extra_data=False)
        if len(text) != size:
            raise zstandard.ZstdError("cut off")
        return text.decode()
    except (zstandard.ZstdError, ValueError, TypeError) as error:
        raise BankError(f"{what}: damaged; restore the bank from a copy") from error
