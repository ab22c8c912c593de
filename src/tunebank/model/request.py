"""What is asked of the reading process, and how it answers: files in a folder; see `reader.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tunebank import errors
from tunebank.errors import TunebankError

STEP_FILE = "step"
REQUEST_FILE = "request.json"
ANSWER_FILE = "answer.json"
NODES_FILE = "nodes.json"


@dataclass(frozen=True)
class Request:
    """What to read.

    Attributes:
        path: the model file.
        target: JSON text of the TVM target.
        shapes: see `shapes.InputShapes`.
        dims: see `shapes.DimValues`.
        strategy: index into `strategy.STRATEGIES`.
        nodes: how many nodes of the canonical graph to take; None takes all. With fewer it is
            found out which node something fails at.
    """

    path: str
    target: str
    shapes: dict[str, list[Any]]
    dims: dict[str, list[int]]
    strategy: int = 0
    nodes: int | None = None


@dataclass(frozen=True)
class Seconds:
    """What reading took, by part.

    Attributes:
        start: importing TVM and ONNX Runtime, once per process.
        read: the file: structure, checks, weights moved out; a PyTorch program's export.
        canonicalise: ONNX Runtime's optimisations, rewriting.
        graph: import into TVM, layout, lowering, fusion, writing the result.
    """

    start: float = 0.0
    read: float = 0.0
    canonicalise: float = 0.0
    graph: float = 0.0


def error_of(answer: dict[str, Any]) -> TunebankError | None:
    """The error that an answer reports, if it does."""
    if "error" not in answer:
        return None
    kind = getattr(errors, str(answer["kind"]), errors.ModelError)
    error = kind(answer["error"])
    assert isinstance(error, TunebankError)
    return error
