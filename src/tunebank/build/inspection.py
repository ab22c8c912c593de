"""A finished draft looked at: its numbers verified, its latency measured."""

from __future__ import annotations

from pathlib import Path

from tunebank.build.verify import verify
from tunebank.errors import VerificationError
from tunebank.model import Model
from tunebank.runtime.bench import measure_latency, random_feed
from tunebank.runtime.manifest import Latency, Manifest, VerificationResult
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
        VerificationError: they differ.
    """
    session = Session(folder)
    outcome = _verified(session, model) if verified else None
    feed = random_feed(manifest.inputs)
    samples = measure_latency(lambda: session.run(None, feed), min_seconds=_LATENCY_SECONDS)
    latency = Latency(median=samples.median_ms, p90=samples.p90_ms)
    return manifest.model_copy(update={"verified": outcome, "latency_ms": latency})


def _verified(session: Session, model: Model) -> VerificationResult:
    found = verify(
        lambda feed: session.run(None, feed), model.path, model.inputs, threads=session.threads
    )
    if not found.passed:
        raise VerificationError(
            f"{model.path}: the compiled model differs from ONNX Runtime by "
            f"{found.max_rel_error:.2g} of the largest value ({found.worst}); nothing was "
            "written; --no-verify lets it pass"
        )
    return VerificationResult(**vars(found))
