"""Messages between the measuring process and its workers: JSON in length-prefixed frames."""

from __future__ import annotations

import json
import struct
from typing import IO, Any

_HEADER = struct.Struct("<I")
MAX_FRAME_BYTES = 256 * 1024 * 1024

Message = dict[str, Any]


def write_message(stream: IO[bytes], message: Message) -> None:
    """Writes one message and flushes."""
    payload = json.dumps(message, separators=(",", ":")).encode()
    stream.write(_HEADER.pack(len(payload)) + payload)
    stream.flush()


def read_message(stream: IO[bytes]) -> Message | None:
    """The next message; None at the end of the stream.

    Raises:
        ValueError: the frame is too large or is no JSON object.
    """
    header = stream.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    (length,) = _HEADER.unpack(header)
    if length > MAX_FRAME_BYTES:
        raise ValueError(f"frame of {length} bytes")
    payload = stream.read(length)
    if len(payload) < length:
        return None
    message = json.loads(payload)
    if not isinstance(message, dict):
        raise ValueError("frame is not an object")
    return message
