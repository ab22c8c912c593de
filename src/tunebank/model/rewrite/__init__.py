"""Rewrites of an ONNX graph before TVM sees it.

A rule takes the place of one node: with operators that TVM has, has right, or schedules well.
Rules may use what other rules rewrite; they are applied until none has anything to do.

    model ─functions inlined─▶ ( fold small constants ─▶ rules )* ─▶ unused nodes dropped
"""

from tunebank.model.rewrite.graph import Graph
from tunebank.model.rewrite.rewrite import rewrite
from tunebank.model.rewrite.signal import transform_points
from tunebank.model.rewrite.support import unsupported
from tunebank.model.rewrite.upcast import upcast

__all__ = ["Graph", "rewrite", "transform_points", "unsupported", "upcast"]
