"""Plans made into artifacts, and their numbers checked."""

from tunebank.build.artifact import check_output, kernel_entry, target_features, write_artifact
from tunebank.build.compile import build, check_compiler
from tunebank.build.confirm import find_plan
from tunebank.build.cure import with_right_kernels
from tunebank.build.diverge import Divergence, first_divergence
from tunebank.build.inspection import inspect_draft
from tunebank.build.tolerance import expected_rounding
from tunebank.build.verify import Verification, verify, verify_against

__all__ = [
    "Divergence",
    "Verification",
    "build",
    "check_compiler",
    "check_output",
    "expected_rounding",
    "find_plan",
    "first_divergence",
    "inspect_draft",
    "kernel_entry",
    "target_features",
    "verify",
    "verify_against",
    "with_right_kernels",
    "write_artifact",
]
