"""Every workaround for the Apache TVM version in use (0.27), and nothing else.

Each one says why it is here and when it can go. No other module patches TVM. Call `prepare`
before the first use of TVM in a process; it is cheap to call again.
"""

from tunebank._tvm.byte_products import add_products_of_bytes
from tunebank._tvm.import_progress import noting_nodes
from tunebank._tvm.json_graph import load_own_json
from tunebank._tvm.memory import can_flush_lines, flush_line, prefetch
from tunebank._tvm.onnx_frontend import repair_importer
from tunebank._tvm.prepare import TVM_FFI_VERSION, TVM_VERSION, prepare, tvm_imported
from tunebank._tvm.prim_func import with_own_type
from tunebank._tvm.sketches import sketches_of
from tunebank._tvm.tensors import array_view, flat_view, tensor_of, view
from tunebank._tvm.threads import core_ids, running_on
from tunebank._tvm.torch_apart import keep_torch_apart
from tunebank._tvm.warnings import without_warnings

__all__ = [
    "TVM_FFI_VERSION",
    "TVM_VERSION",
    "add_products_of_bytes",
    "array_view",
    "can_flush_lines",
    "core_ids",
    "flat_view",
    "flush_line",
    "keep_torch_apart",
    "load_own_json",
    "noting_nodes",
    "prefetch",
    "prepare",
    "repair_importer",
    "running_on",
    "sketches_of",
    "tensor_of",
    "tvm_imported",
    "view",
    "with_own_type",
    "without_warnings",
]
