"""A finished draft looked at: its numbers verified, its latency measured."""

from __future__ import annotations

from pathlib import Path

from tunebank.build.diverge import Divergence, first_divergence
from tunebank.build.finding import Finding
from tunebank.build.place import kernel_key_of
from tunebank.build.tolerance import expected_rounding
from tunebank.build.verify import verify
from tunebank.device import detect_device
from tunebank.errors import VerificationError, WrongKernelError
from tunebank.model import Model
from tunebank.runtime.bench import measure_latency
from tunebank.runtime.feed import random_feed
from tunebank.runtime.manifest import Function, Latency, Manifest, VerificationResult
from tunebank.runtime.session import Session

_LATENCY_SECONDS = 0.7


def inspect_draft(model: Model, folder: Path, manifest: Manifest, *, verified: bool) -> Manifest:
    """The manifest completed with the numbers of the draft as it will be run.

    Args:
        model: the model.
        folder: the draft.
        manifest: what it says of itself.
        verified: whether its numbers are compared with ONNX Runtime's.

    Raises:
        WrongKernelError: they differ, and a kernel is to blame.
        VerificationError: they differ, for another reason.
    """
    session = Session(folder)
    outcomes = [
        _verified(session, model, function, folder)
        for function in (manifest.functions if verified else ())
    ]
    functions = tuple(
        function.model_copy(update={"latency_ms": _latency(session, function)})
        for function in manifest.functions
    )
    worst = max(outcomes, key=lambda one: (not one.conclusive, one.max_rel_error), default=None)
    return manifest.model_copy(update={"verified": worst, "functions": functions})


def _latency(session: Session, function: Function) -> Latency:
    feed = random_feed(function.inputs)
    samples = measure_latency(lambda: session.run(None, feed), min_seconds=_LATENCY_SECONDS)
    return Latency(median=samples.median_ms, p90=samples.p90_ms)


def _verified(
    session: Session, model: Model, function: Function, folder: Path
) -> VerificationResult:
    found = verify(
        lambda feed: session.run(None, feed),
        model.reference,
        function.inputs,
        threads=session.threads,
        rounding=expected_rounding(
            model.module, function=function.name, growth=_growth(model, session.manifest)
        ),
    )
    if found.failure is not None:
        cause = _cause(session, model, function, folder, found.failure)
        message = (
            f"{model.path}: the compiled model differs from ONNX Runtime {found.failure}; "
            f"{cause}; nothing was written; --no-verify lets it pass"
        )
        if isinstance(cause, Divergence) and cause.kernel:
            raise WrongKernelError(message, kernel=cause.kernel, kernel_key=cause.kernel_key)
        raise VerificationError(message)
    # The manifest keeps what a reader of it can use.
    kept = {name: getattr(found, name) for name in VerificationResult.model_fields}
    return VerificationResult(**kept)


def _growth(model: Model, manifest: Manifest) -> dict[str, float]:
    """By tensor program of the graph, how many times more than a plain sum its schedule rounds."""
    by_key = {kernel_key_of(entry.symbol): entry.error_growth for entry in manifest.kernels}
    return {name: by_key.get(key, 1.0) for name, key in model.kernel_of.items()}


def _cause(
    session: Session, model: Model, function: Function, folder: Path, failure: Finding
) -> Divergence | str:
    """Which kernel is to blame, or why that is not known."""
    manifest = session.manifest
    device = detect_device(manifest.target, threads=session.threads)
    feed = random_feed(function.inputs, kind=failure.kind)
    try:
        return first_divergence(model, device, folder, feed, function=function.name)
    except Exception as error:  # whatever TVM's C++ side threw hides no failed verification
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return f"the diverging kernel could not be found: {lines[-1][:200]}"
