"""TVM's JSON of programs, read without being written anew."""

from __future__ import annotations

from typing import Any


def load_own_json(text: str) -> Any:
    """The object in a JSON text that `tvm.ir.save_json` of this very version wrote.

    `tvm.ir.load_json` parses the text in Python first, to upgrade what older versions wrote, and
    formats it anew with an indent: most of the time of handing a program from process to process.
    Goes when it leaves alone what needs no upgrade.
    """
    from tvm_ffi.serialization import from_json_graph_str

    return from_json_graph_str(text)
