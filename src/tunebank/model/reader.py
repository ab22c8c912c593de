"""The process that reads a model; started by `process.py`.

The front half runs TVM's most fragile code on a file that may come from anyone. It has a process of
its own, so that a crash, a hang or a lack of memory ends that process and nothing else.

    FOLDER/
    ├── request.json        what to read, and how
    ├── step                what is being done; see `notes.py`
    ├── nodes.json          names of the canonical graph's nodes
    ├── model0.json, ...    a fused graph for each set of shapes  ┐ see `parcel.py`
    ├── weights.bin         their weights                         ┘
    └── answer.json         what the model is; or the error
"""

from __future__ import annotations

import json
import os
import resource
import time
import warnings
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebank._processes import follow_parent, own_channel
from tunebank.errors import TunebankError
from tunebank.model.notes import Notebook
from tunebank.model.request import (
    ANSWER_FILE,
    NODES_FILE,
    REQUEST_FILE,
    STEP_FILE,
    Request,
    Seconds,
)
from tunebank.model.strategy import STRATEGIES, Strategy

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

    from tunebank.model.canonical import CanonicalGraph

_UNCHECKED = "numbers are unchecked"  # what the export of a PyTorch program may warn of


@dataclass
class _Reading:
    """One run: the request, where things lie, and what it took."""

    request: Request
    folder: Path
    notebook: Notebook
    seconds: Seconds = field(default_factory=Seconds)
    warnings: list[str] = field(default_factory=list)

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            taken = getattr(self.seconds, part) + time.monotonic() - start
            self.seconds = replace(self.seconds, **{part: taken})


def read(reading: _Reading) -> dict[str, Any]:
    """Reads the model; returns the answer."""
    from tunebank.model.parcel import Packer

    strategy = STRATEGIES[reading.request.strategy]
    with reading.timed("read"):
        source = _source(reading)
    packer, functions, convolutions = Packer(reading.folder), [], {}
    for index, graph in enumerate(_canonical(reading, source, strategy)):
        with reading.timed("graph"):
            fused = _fused(reading, graph, strategy)
            reading.notebook.note("writing of the graph")
            packer.pack(fused.module, f"model{index}")
        convolutions = fused.convolutions
        functions.append(_function(reading, graph))
    return {
        "reference": str(source.path),
        "functions": functions,
        "convolutions": convolutions,
        "warnings": reading.warnings,
        "seconds": asdict(reading.seconds),
        "peak_bytes": _peak_bytes(),
    }


@dataclass(frozen=True)
class _Source:
    """The model as ONNX: the file, its structure, and where its weights lie."""

    path: Path
    proto: onnx.ModelProto
    weights: Path


def _source(reading: _Reading) -> _Source:
    from tunebank.model import onnx_file
    from tunebank.model.rewrite import upcast

    path = Path(reading.request.path)
    reading.notebook.note("reading of the file")
    if path.suffix == ".pt2" and path.is_file():
        path = _exported(reading, path)
    proto = onnx_file.read_structure(path)
    onnx_file.check_inputs(path, proto)
    has_bfloat16 = onnx_file.has_bfloat16(proto)
    weights = path.absolute().parent
    if has_bfloat16 or not onnx_file.has_external_data(proto):
        reading.notebook.note("reading of the weights")
        proto = onnx_file.move_weights_out(proto, weights, reading.folder / "source.bin")
        weights = reading.folder
    proto = upcast(proto)
    if has_bfloat16:  # ONNX Runtime can't run the file itself
        path = reading.folder / "reference.onnx"
        path.write_bytes(proto.SerializeToString())
    return _Source(path, proto, weights)


def _exported(reading: _Reading, path: Path) -> Path:
    """A PyTorch program as an ONNX file."""
    from tunebank.model.torch_file import export_onnx

    reading.notebook.note("torch's ONNX exporter")
    with warnings.catch_warnings(record=True) as said:
        warnings.filterwarnings("always", message=f".*{_UNCHECKED}")
        exported = export_onnx(path, reading.folder)
    reading.warnings += [str(one.message) for one in said if _UNCHECKED in str(one.message)]
    return exported


def _canonical(reading: _Reading, source: _Source, strategy: Strategy) -> Iterator[CanonicalGraph]:
    """The canonical graph for each set of shapes."""
    from tunebank.model.canonical import canonicalise, first_nodes
    from tunebank.model.onnx_file import graph_inputs
    from tunebank.model.shapes import shape_sets

    request = reading.request
    path = Path(request.path)
    inputs = graph_inputs(source.proto)
    for shapes in shape_sets(path, inputs, request.shapes, request.dims):
        reading.notebook.note("ONNX Runtime's graph optimiser")
        with reading.timed("canonicalise"):
            graph = canonicalise(
                path,
                source.proto,
                shapes,
                weights=source.weights,
                folder=reading.folder,
                optimise=strategy.optimise,
                multiplies_bytes=_multiplies_bytes(request, strategy),
            )
        nodes = [f"{node.name} ({node.op_type})" for node in graph.proto.graph.node]
        (reading.folder / NODES_FILE).write_text(json.dumps(nodes))
        yield graph if request.nodes is None else first_nodes(graph, request.nodes)


def _fused(reading: _Reading, graph: CanonicalGraph, strategy: Strategy) -> Any:
    from tvm.target import Target

    from tunebank.model.graph import fused_graph

    target = Target(json.loads(reading.request.target))
    path, note = Path(reading.request.path), reading.notebook.note
    multiplies_bytes = _multiplies_bytes(reading.request, strategy)
    return fused_graph(path, graph, target, strategy, note, multiplies_bytes=multiplies_bytes)


def _multiplies_bytes(request: Request, strategy: Strategy) -> bool:
    """Whether quantised layers become sums of bytes; the last strategy takes what is plainest."""
    from tunebank.device import multiplies_bytes

    return strategy.fuse and multiplies_bytes(request.target)


def _function(reading: _Reading, graph: CanonicalGraph) -> dict[str, Any]:
    """The names, shapes and types of what a graph takes, and the names of what it gives."""
    from tunebank.model.index_range import index_limits
    from tunebank.model.onnx_file import graph_inputs, spec_of

    limits = index_limits(graph.proto)
    inputs = [spec_of(one, limits.get(one.name)) for one in graph_inputs(graph.proto)]
    outputs = [value.name for value in graph.proto.graph.output]
    return {"inputs": [asdict(spec) for spec in inputs], "outputs": outputs}


def _import_all() -> None:
    from tunebank import _tvm

    _tvm.prepare(threads=1)
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401
    import tvm.relax.frontend.onnx  # noqa: F401


def _peak_bytes() -> int:
    """Most memory that this process has had; 0 where the system does not tell.

    `getrusage` tells more: on Linux a process inherits the peak of whoever started it.
    """
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def _limit_memory() -> None:
    """Makes a model that asks for more memory than there is fail, instead of the machine."""
    import psutil

    with suppress(ValueError, OSError):
        most = int(psutil.virtual_memory().total)
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))


def serve() -> None:
    """Reads a model for each line of standard input, the name of a folder.

    Each is read by a copy of this process, which has imported all that takes long; how the copy
    ended is answered in a line.
    """
    import psutil

    follow_parent()
    folders, answers = own_channel()
    _import_all()
    started = time.time() - psutil.Process().create_time()
    for line in folders:
        folder = Path(line.decode().rstrip("\n"))
        child = os.fork()
        if child == 0:
            follow_parent()
            _limit_memory()
            answer_in(folder, Seconds(start=started))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        started = 0.0  # once per process
        answers.write(f"{os.waitstatus_to_exitcode(status)}\n".encode())
        answers.flush()


def answer_in(folder: Path, seconds: Seconds) -> None:
    """Reads the request in a folder, and leaves the answer there."""
    warnings.simplefilter("ignore")  # libraries warn of what is in the file; that is no news
    request = Request(**json.loads((folder / REQUEST_FILE).read_text()))
    reading = _Reading(request, folder, Notebook(folder / STEP_FILE), seconds)
    answer: dict[str, Any]
    try:
        answer = read(reading)
    except TunebankError as error:
        answer = {"error": str(error), "kind": type(error).__name__}
    except MemoryError:
        answer = {"failure": "it takes more memory than this machine has"}
    except Exception as error:  # a pass that fails: the next strategy leaves it out
        lines = str(error).strip().splitlines() or [type(error).__name__]
        answer = {"failure": lines[-1][:300]}
    partial = folder / f"{ANSWER_FILE}.partial"
    partial.write_text(json.dumps(answer))
    partial.rename(folder / ANSWER_FILE)
