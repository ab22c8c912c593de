"""Plans made into artifacts, and their numbers checked."""

from tunebank.build.artifact import check_output, kernel_entry, target_features, write_artifact
from tunebank.build.compile import build, check_compiler
from tunebank.build.inspection import inspect_draft
from tunebank.build.verify import Verification, example_inputs, verify

__all__ = [
    "Verification",
    "build",
    "check_compiler",
    "check_output",
    "example_inputs",
    "inspect_draft",
    "kernel_entry",
    "target_features",
    "verify",
    "write_artifact",
]
