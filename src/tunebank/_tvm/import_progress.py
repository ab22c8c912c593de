"""TVM's ONNX importer made to say which node it is at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def noting_nodes(note: Callable[[str, str], None]) -> Iterator[None]:
    """Inside, each node of an ONNX graph that is imported is noted first.

    The importer prints a failing node's Relax operands to standard output and raises whatever its
    converter raised, without the node's name. Goes when its exceptions carry it.

    Args:
        note: called with the operator and the name of the node.
    """
    from tvm.relax.frontend.onnx import onnx_frontend

    importer = onnx_frontend.ONNXGraphImporter
    original = importer._convert_operator

    def convert(self: Any, op_name: str, inputs: Any, attrs: Any, opset: int) -> Any:
        note(op_name, str(attrs.get("tvm_custom", {}).get("name", "")))
        return original(self, op_name, inputs, attrs, opset)

    importer._convert_operator = convert
    try:
        yield
    finally:
        importer._convert_operator = original
