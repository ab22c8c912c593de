"""A plan: for each kernel of a model the schedule chosen, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tunebank.kernel import Kernel
from tunebank.measure import Measurement
from tunebank.model import Join
from tunebank.schedule import Scheduled

MatchLevel = Literal["exact", "class", "anchor", "none"]
Origin = Literal["transfer", "refine", "default", "algorithm", "reference", "unscheduled"]


@dataclass(frozen=True)
class GivenUp:
    """A schedule that was chosen, and failed when the model was compiled.

    Attributes:
        scheduled: the schedule.
        origin: where it came from.
        record_id: its donor's record; "" without one.
        result: how it failed.
    """

    scheduled: Scheduled
    origin: Origin
    record_id: str
    result: Measurement

    def __str__(self) -> str:
        return f"{self.result.status}: {self.result.error}"


@dataclass(frozen=True)
class Choice:
    """The schedule chosen for one kernel.

    Attributes:
        kernel: the kernel.
        scheduled: the schedule; None leaves the kernel unscheduled, as a last resort.
        origin: a donor's schedule, a refined one, the kernel's own default, another algorithm
            for it without a donor, or the reference schedule, where nothing else builds.
        match: how the donor that led to it relates to the kernel; for the default, how the
            nearest donor does that was passed over; `none` if the bank has no donor.
        source: model that the donor was tuned for; "" for the default.
        record_id: the donor record; "" for the default.
        latency_us: measured latency; None if the choice was not measured.
        untuned_us: measured latency of the default schedule; None if it was not measured.
        candidates: distinct candidates that the donors gave.
        measured: candidates measured.
        invalid: candidates refused before any build.
        failed: candidates that failed to build or run, or gave wrong numbers.
        wrong: those of them that gave wrong numbers.
        donors_us: by model, the latency of the fastest candidate that came from it unrefined.
        checked: whether its numbers were compared.
        default: the default schedule, to be tried in the model; None if it is the choice, or far
            behind.
        alternatives: the next best choices, to be tried likewise.
        given_up: what was chosen before it, and failed when the model was compiled.
    """

    kernel: Kernel
    scheduled: Scheduled | None
    origin: Origin
    match: MatchLevel = "none"
    source: str = ""
    record_id: str = ""
    latency_us: float | None = None
    untuned_us: float | None = None
    candidates: int = 0
    measured: int = 0
    invalid: int = 0
    failed: int = 0
    wrong: int = 0
    donors_us: Mapping[str, float] = field(default_factory=dict)
    checked: bool = False
    default: Choice | None = field(default=None, repr=False)
    alternatives: tuple[Choice, ...] = field(default=(), repr=False)
    given_up: tuple[GivenUp, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Plan:
    """The choices for all kernels of a model, by kernel key, and what finding them took.

    Attributes:
        choices: by kernel key.
        joins: pairs of the model's kernels that are made one, and the key of that one; the choices
            are for the kernels of the model with them (`tunebank.model.joined`).
        search_seconds: wall time from the first candidate to the last measurement.
        measured: candidates measured, of all kernels.
        interrupted: whether the search was stopped before its budget was used.
    """

    choices: Mapping[str, Choice] = field(repr=False)
    joins: Mapping[Join, str] = field(default_factory=dict, repr=False)
    search_seconds: float = 0.0
    measured: int = 0
    interrupted: bool = False

    @property
    def kernels_us(self) -> float:
        """Sum of the measured latencies, each times its kernel's weight."""
        return sum(c.kernel.weight * (c.latency_us or 0.0) for c in self.choices.values())

    @property
    def untuned_us(self) -> float:
        """The same sum under the default schedules."""
        return sum(c.kernel.weight * (c.untuned_us or 0.0) for c in self.choices.values())
