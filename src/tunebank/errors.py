"""Every error that tunebank raises on purpose.

    TunebankError                 exit code 1
    ├── UsageError                2   bad option or input: the user can mend it
    │   ├── ModelError            2   the model file can't be read or imported
    │   ├── TargetError           2   unknown or unusable target
    │   ├── BankError             2   not a bank, or not one that can be used
    │   └── ArtifactError         2   not a compiled model, or not for this machine
    ├── VerificationError         3   numbers differ from the reference
    │   └── WrongKernelError      3   and one kernel is known to be wrong
    ├── MeasurementError          4   nothing could be measured
    └── MissingExtraError         5   an optional dependency is not installed

A message is one line: what, where, what to do next.
"""

from __future__ import annotations


class TunebankError(Exception):
    """Base of all errors raised on purpose."""

    exit_code = 1


class UsageError(TunebankError):
    """Bad option or input: the user can mend it."""

    exit_code = 2


class ModelError(UsageError):
    """The model file can't be read, or can't be imported."""


class TargetError(UsageError):
    """Unknown or unusable target."""


class BankError(UsageError):
    """Not a bank, or not one that can be used."""


class ArtifactError(UsageError):
    """Not a compiled model, or not for this machine."""


class VerificationError(TunebankError):
    """Numbers differ from the reference's."""

    exit_code = 3


class WrongKernelError(VerificationError):
    """One kernel computes wrong numbers under its schedule.

    Attributes:
        kernel: its name.
        kernel_key: its identity.
    """

    def __init__(self, message: str, *, kernel: str, kernel_key: str) -> None:
        super().__init__(message)
        self.kernel = kernel
        self.kernel_key = kernel_key


class MeasurementError(TunebankError):
    """Nothing could be measured."""

    exit_code = 4


class MissingExtraError(TunebankError):
    """An optional dependency is not installed."""

    exit_code = 5
