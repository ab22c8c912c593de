"""Whom an artifact is timed against: names made into something that runs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tunebank.build import write_artifact
from tunebank.device import Device, detect_device
from tunebank.errors import UsageError
from tunebank.model import Model, load_model
from tunebank.runtime import is_artifact
from tunebank.runtime.bench import Contestant, Feed, onnxruntime_contestant
from tunebank.runtime.feed import random_feed
from tunebank.runtime.session import Session
from tunebank.search import Plan

ONNXRUNTIME = "onnxruntime"
UNTUNED = "untuned"
ARTIFACT = "artifact"

MakePlan = Callable[[Model, Device], Plan]


@contextmanager
def contestants(
    session: Session,
    against: Sequence[str],
    *,
    default_plan: MakePlan,
    report: Callable[[str], None],
) -> Iterator[dict[str, Contestant]]:
    """What runs once, by name; the artifact itself, as `artifact`, comes first.

    Args:
        session: the artifact.
        against: see `tunebank.api.bench_artifact`.
        default_plan: makes the plan of `untuned`.
        report: called with a line before something that takes seconds.

    Raises:
        UsageError: a name that is no contestant, or one whose inputs differ.
    """
    feed = random_feed(session.manifest.functions[0].inputs)
    with ExitStack() as stack:
        runs = {ARTIFACT: _session_contestant(session, feed)}
        for name in dict.fromkeys(against):
            if name == UNTUNED:
                report("compiling with default schedules")
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tunebank-"))
                runs[name] = _untuned(session, feed, Path(folder) / "untuned", default_plan)
            elif name == ONNXRUNTIME:
                runs[name] = _onnxruntime_on_source(session, feed)
            else:
                runs[name] = _named(name, session, feed)
        yield runs


def _named(name: str, session: Session, feed: Feed) -> Contestant:
    path = Path(name)
    if is_artifact(path):
        other = Session(path, threads=session.threads)
        if other.manifest.inputs != session.manifest.inputs:
            raise UsageError(
                f"{path}: takes other inputs than the artifact; compare like with like"
            )
        return _session_contestant(other, feed)
    if path.is_file():
        return _onnxruntime(path, session, feed)
    raise UsageError(
        f"{name}: nothing to compare with; give {ONNXRUNTIME}, {UNTUNED}, an artifact or an "
        "ONNX file"
    )


def _session_contestant(session: Session, feed: Feed) -> Contestant:
    def run() -> None:
        session.run(None, feed)

    return run


def _onnxruntime(path: Path, session: Session, feed: Feed) -> Contestant:
    try:
        run = onnxruntime_contestant(path, feed, threads=session.threads)
        run()
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        reason = " ".join(str(error).split())[:300]
        raise UsageError(f"{path}: ONNX Runtime can't run it on these inputs: {reason}") from error
    return run


def _untuned(session: Session, feed: Feed, folder: Path, default_plan: MakePlan) -> Contestant:
    manifest = session.manifest
    device = detect_device(manifest.target, threads=session.threads)
    model = load_model(_model_path(session), device, input_shapes=_shapes(session))
    write_artifact(folder, model, default_plan(model, device), device)
    return _session_contestant(Session(folder), feed)


def _onnxruntime_on_source(session: Session, feed: Feed) -> Contestant:
    """ONNX Runtime on the file that the artifact was compiled from."""
    path = _model_path(session)
    if path.suffix != ".pt2":
        return _onnxruntime(path, session, feed)
    device = detect_device(session.manifest.target, threads=session.threads)
    model = load_model(path, device, input_shapes=_shapes(session))
    return _onnxruntime(model.reference, session, feed)


def _shapes(session: Session) -> dict[str, list[list[int]]]:
    """Shapes of the inputs, for each function."""
    functions = session.manifest.functions
    return {
        spec.name: [
            [extent or 0 for extent in function.inputs[index].shape] for function in functions
        ]
        for index, spec in enumerate(functions[0].inputs)
    }


def _model_path(session: Session) -> Path:
    path = Path(session.manifest.model_path)
    if not path.is_file():
        raise UsageError(
            f"{path}: the file that the artifact was compiled from is gone; "
            "compare with --against FILE.onnx"
        )
    return path
