"""Sketches of every kernel: MetaSchedule's rules for CPUs raise on some."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunebank._tvm.warnings import without_warnings

if TYPE_CHECKING:
    from tvm import s_tir
    from tvm.s_tir.meta_schedule import TuneContext
    from tvm.s_tir.meta_schedule.space_generator import PostOrderApply


def sketches_of(context: TuneContext) -> list[s_tir.Schedule]:
    """The schedules of a kernel's design space, with the decisions that the sampler drew.

    `AutoInline` leaves a block with a choice or an exponential in it by itself. Where the last
    step of a kernel reads both the reduction and such a block, `MultiLevelTiling` moves that step
    into the reduction's tiles, which the other block then is outside of: the schedule primitive
    raises, and there are no sketches at all. Those kernels have everything inlined. Goes when
    tiling leaves out a fusion that can't be made.

    Args:
        context: of the kernel, with `post-order-apply`.

    Returns:
        none if the rules raise even so.
    """
    with without_warnings():
        try:
            return list(context.generate_design_space())
        except RuntimeError:
            everything = _with_all_inlined(context.space_generator)
            everything._initialize_with_tune_context(context)
        try:
            return list(everything.generate_design_space(context.mod))
        except RuntimeError:
            return []


def _with_all_inlined(rules: PostOrderApply) -> PostOrderApply:
    from tvm.s_tir.meta_schedule.schedule_rule import AutoInline
    from tvm.s_tir.meta_schedule.space_generator import PostOrderApply

    inlining = AutoInline(
        into_producer=False,
        into_consumer=True,
        inline_const_tensor=True,
        disallow_if_then_else=False,
        require_injective=True,
        require_ordered=True,
    )
    return PostOrderApply(
        sch_rules=[inlining if isinstance(rule, AutoInline) else rule for rule in rules.sch_rules],
        postprocs=rules.postprocs,
        mutator_probs=rules.mutator_probs,
    )
