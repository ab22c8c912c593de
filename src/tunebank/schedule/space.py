"""A kernel's design space on a device: sketches, and traces made into programs.

The space is MetaSchedule's: schedule rules give a few *sketches* (traces whose decisions are
open), post-processors finish a program and prove it legal. Everything that tunebank measures
went through `Space.apply`, whoever proposed it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

from tvm import ir, s_tir
from tvm.s_tir.meta_schedule import TuneContext
from tvm.s_tir.meta_schedule.search_strategy import SearchStrategy
from tvm.s_tir.schedule import Trace as TvmTrace

from tunebank import _tvm
from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.schedule.grammar import check_trace
from tunebank.schedule.programs import own_program
from tunebank.schedule.trace import Trace

_MOST_INLINED = 20_000
"""Loads times choices in a kernel's expressions: of 87,000 inlining took 12 s, of 6,200 one."""
_SEED = 1  # of the sampler: the same kernel gives the same sketches in every process


class IllegalScheduleError(Exception):
    """A trace that can't be replayed on the kernel, or that a post-processor refuses."""


@dataclass(frozen=True)
class Scheduled:
    """A kernel with a schedule applied: legal, not yet built.

    Attributes:
        kernel: the kernel.
        trace: the schedule.
        schedule: TVM's schedule, post-processed. In its program a pre-packed weight is still
            an argument in its plain layout, followed by a block that packs it. None for a
            schedule that is a program of its own.
        program: that program.
    """

    kernel: Kernel
    trace: Trace
    schedule: s_tir.Schedule | None = field(repr=False, compare=False)
    program: ir.IRModule | None = field(default=None, repr=False, compare=False)

    @classmethod
    def from_schedule(cls, kernel: Kernel, schedule: s_tir.Schedule) -> Scheduled:
        """A post-processed schedule of TVM's."""
        return cls(kernel, Trace.from_json(schedule.trace.as_json(), kernel.blocks), schedule)

    @property
    def module(self) -> ir.IRModule:
        """The program."""
        return self.program if self.schedule is None else self.schedule.mod


class Space:
    """The design space of one kernel on one device. Not thread-safe."""

    def __init__(
        self,
        kernel: Kernel,
        device: Device,
        *,
        strategy: SearchStrategy | None = None,
    ) -> None:
        self.kernel = kernel
        self.device = device
        self.context = TuneContext(
            kernel.module,
            target=device.tvm_target(),
            space_generator="post-order-apply",
            search_strategy=strategy or "evolutionary",
            num_threads=device.threads,
            rand_state=_SEED,
        )

    @cached_property
    def sketches(self) -> tuple[Trace, ...]:
        """Traces of the space, with the decisions that the sampler happened to draw.

        None of a kernel whose steps are so much when they are inlined that this takes seconds: the
        last step of a recurrent layer within the concatenation of all.
        """
        if math.prod(self.kernel.inlined_size) > _MOST_INLINED:
            return ()
        return tuple(
            Trace.from_json(schedule.trace.as_json(), self.kernel.blocks)
            for schedule in _tvm.sketches_of(self.context)
        )

    def apply(self, trace: Trace) -> Scheduled:
        """Replays a trace and post-processes the result.

        Raises:
            IllegalScheduleError: the trace does not fit the kernel, or the program is illegal.
        """
        # A trace can make TVM allocate by its own factors; a bad one must not kill the process.
        schedule = s_tir.Schedule(self.kernel.module, debug_mask="none", error_render_level="none")
        try:
            program = own_program(trace, self.kernel, self.device)
            if program is not None:
                return Scheduled(self.kernel, trace, None, program)
            check_trace(trace)
            TvmTrace.apply_json_to_schedule(trace.to_json(self.kernel.blocks), schedule)
            schedule.enter_postproc()
            for postproc in self.context.space_generator.postprocs:
                if not postproc.apply(schedule):
                    raise IllegalScheduleError(f"refused by {type(postproc).__name__}")
        except (RuntimeError, ValueError, IndexError, TypeError, KeyError) as error:
            reason = str(error).strip().splitlines()
            raise IllegalScheduleError(reason[-1] if reason else type(error).__name__) from error
        # Its trace says what was really applied: TVM replaces a decision that does not fit.
        return Scheduled.from_schedule(self.kernel, schedule)
