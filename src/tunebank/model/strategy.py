"""Ways through the front half, tried in turn when TVM fails."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Strategy:
    """A way through the front half; the next one leaves out what may have failed.

    Attributes:
        name: what is told of it.
        optimise: ONNX Runtime's graph optimisations.
        channels_last: convolutions in NHWC.
        fuse: operators fused into kernels.
    """

    name: str
    optimise: bool = True
    channels_last: bool = True
    fuse: bool = True


STRATEGIES = (
    Strategy("full"),
    Strategy("convolutions in NCHW", channels_last=False),
    Strategy("graph as written, nothing fused", optimise=False, channels_last=False, fuse=False),
)
"""What is tried in turn, fastest code first."""
