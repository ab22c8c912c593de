"""Messages to and from workers; processes that speak no sense."""

from __future__ import annotations

import io
import json
import struct
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunebank.errors import MeasurementError
from tunebank.measure import pool
from tunebank.measure.protocol import MAX_FRAME_BYTES, read_message, write_message

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
messages = st.dictionaries(st.text(), values, max_size=5)


@given(st.lists(messages, max_size=4))
def test_messages_arrive_as_they_were_sent(sent: list[dict[str, Any]]) -> None:
    stream = io.BytesIO()
    for message in sent:
        write_message(stream, message)
    stream.seek(0)
    for message in sent:
        assert read_message(stream) == message
    assert read_message(stream) is None


@given(messages, st.data())
def test_a_stream_that_ends_within_a_message(message: dict[str, Any], data: st.DataObject) -> None:
    stream = io.BytesIO()
    write_message(stream, message)
    size = data.draw(st.integers(0, len(stream.getvalue()) - 1))
    assert read_message(io.BytesIO(stream.getvalue()[:size])) is None


@pytest.mark.parametrize("payload", [b"[]", b"5", b"null", b"{", b"\xff\xfe", b"", b'"text"'])
def test_a_frame_that_is_no_object(payload: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  json's own or ours
        read_message(io.BytesIO(struct.pack("<I", len(payload)) + payload))


def test_a_frame_too_large_is_refused_before_it_is_read() -> None:
    class Endless(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            assert size is not None
            assert size <= 4, "only the header"
            return struct.pack("<I", MAX_FRAME_BYTES + 1)

    with pytest.raises(ValueError, match="frame of"):
        read_message(Endless())


def test_no_message_is_larger_than_it_may_be_read() -> None:
    header = struct.pack("<I", MAX_FRAME_BYTES)
    assert read_message(io.BytesIO(header + json.dumps({}).encode())) is None, "cut off"


def script(path: Path, body: str) -> str:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    "body",
    [
        r"printf '\377\377\377\377garbage'; sleep 20",
        r"printf '\004\000\000\000null'; sleep 20",
        r"printf '\005\000\000\000{{{{{'; sleep 20",
        "echo wrong Python >&2; exit 3",
        "kill -9 $$",
        "exec 1>&-; sleep 20",
    ],
    ids=["oversized", "no object", "no JSON", "exits", "is killed", "closes its stream"],
)
def test_a_worker_that_speaks_no_sense(
    body: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool.sys, "executable", script(tmp_path / "python", body))
    start = time.monotonic()
    worker = pool.WorkerProcess(1)
    try:
        with pytest.raises(MeasurementError, match="tunebank doctor") as caught:
            worker.send({"op": "drop", "tickets": []}, timeout_seconds=5)
    finally:
        worker.stop()
    assert "\n" not in str(caught.value)
    assert time.monotonic() - start < 10, "does not wait for the process"


def test_what_a_dead_worker_said_last_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = "echo first >&2; echo the reason >&2; exit 3"
    monkeypatch.setattr(pool.sys, "executable", script(tmp_path / "python", body))
    worker = pool.WorkerProcess(1)
    with pytest.raises(MeasurementError, match="exit code 3: the reason"):
        worker.send({"op": "drop", "tickets": []}, timeout_seconds=5)
