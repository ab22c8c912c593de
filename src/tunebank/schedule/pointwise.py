"""What every program of our own is written with: parameters, and elements from elements.

A program takes the kernel's parameters, computes what its kind is about in its own order, and hands
each result through the kernel's own expressions:

    t[n, y, x, k]   = conv[n, y, x, k] + bias[0, 0, 0, k]      a step, its axes (n, y, x, k)
    out[n, y, x, k] = max(t[n, y, x, k], 0)                    the next
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tvm import ir, sym, tirx
from tvm.tirx.script.builder import ir as T  # noqa: N812
from tvm_ffi import structural_equal

from tunebank.kernel import BlockSite, Kernel
from tunebank.kernel.expressions import branches, expressions, loads

Load = Callable[[Any, list[Any]], Any]
"""Makes the expression for an element: given a buffer of the kernel and indices."""

WORTH_THREADS = 4096
"""Values; with fewer it is not worth waking threads."""


@dataclass(frozen=True)
class Kept:
    """A part of one of the kernel's buffers, in a buffer of its own.

    Attributes:
        buffer: the program's buffer.
        at: from indices of the kernel's buffer to those in the program's.
    """

    buffer: Any
    at: Callable[[Sequence[Any]], Sequence[Any]]

    def __getitem__(self, place: Sequence[Any]) -> Any:
        return self.buffer[tuple(self.at(place))]


def put(target: Any, value: Any, place: Sequence[Any]) -> None:
    """Stores an element of a buffer, or of one of which a part is kept."""
    if isinstance(target, Kept):
        T.buffer_store(target.buffer, value, list(target.at(place)))
    else:
        T.buffer_store(target, value, list(place))


@dataclass(frozen=True)
class Step:
    """A block that computes an element of its result at the place of its axes.

    Attributes:
        result: the buffer that it writes.
        axes: its axes.
        value: the expression.
    """

    result: Any
    axes: tuple[Any, ...]
    value: Any

    def reads_in_place(self, intermediates: Collection[Any]) -> bool:
        """Whether it reads intermediate results at its own place alone."""
        return all(
            same(load.indices, self.axes)
            for load in loads(self.value)
            if load.source in intermediates
        )

    @cached_property
    def read_often(self) -> tuple[Any, ...]:
        """The buffers that it reads more than once."""
        uses = Counter(load.source for load in loads(self.value))
        return tuple(buffer for buffer, count in uses.items() if count > 1)

    @cached_property
    def has_condition(self) -> bool:
        """Whether it chooses between two values."""
        return has_condition(self.value)


def as_step(site: BlockSite) -> Step | None:
    """A block as a step; None if it reduces, or writes elsewhere than at its axes."""
    store = site.block.body
    axes = tuple(axis.var for axis in site.block.iter_vars)
    if site.reduces or not isinstance(store, tirx.BufferStore) or not same(store.indices, axes):
        return None
    return Step(store.buffer, axes, store.value)


_COMBINERS = (tirx.Add, tirx.Max, tirx.Min)


@dataclass(frozen=True)
class Reduction:
    """A block that combines values into an element of its result.

    Attributes:
        result: the buffer that it writes.
        axes: its axes that tell the element, in order.
        reduced: its axes that are combined over.
        extents: of these.
        value: what is combined.
        combine: the combiner, an expression's type: a sum, a maximum, a minimum.
        identity: what it begins with.
    """

    result: Any
    axes: tuple[Any, ...]
    reduced: tuple[Any, ...]
    extents: tuple[int, ...]
    value: Any
    combine: Any
    identity: Any


def as_reduction(site: BlockSite) -> Reduction | None:
    """A block as a reduction; None if it is none, or writes elsewhere than at its axes."""
    store, init = site.block.body, site.block.init
    axes = [axis.var for axis in site.block.iter_vars]
    spatial = site.spatial_loops
    if site.extents is None or not site.reduces or not isinstance(store, tirx.BufferStore):
        return None
    if not isinstance(store.value, _COMBINERS) or not isinstance(init, tirx.BufferStore):
        return None
    place = tuple(axes[position] for position in spatial)
    so_far = store.buffer[tuple(store.indices)]
    is_plain = same(store.indices, place) and same([store.value.a], [so_far])
    if not is_plain or not isinstance(init.value, tirx.FloatImm):
        return None
    rest = [position for position in range(len(axes)) if position not in spatial]
    return Reduction(
        store.buffer, place, tuple(axes[position] for position in rest),
        tuple(site.extents[position] for position in rest),
        store.value.b, type(store.value), init.value,
    )  # fmt: skip


def steps_after(
    sites: Sequence[BlockSite], result: Any, shape: Sequence[int]
) -> tuple[Step, ...] | None:
    """The blocks after one, if each computes an element from those at the same place.

    Args:
        sites: the blocks.
        result: the buffer that the one before them writes.
        shape: of that buffer, and of theirs.
    """
    known, steps = {result}, []
    for site in sites:
        step = as_step(site)
        if step is None or site.extents != tuple(shape) or not step.reads_in_place(known):
            return None
        known.add(step.result)
        steps.append(step)
    return tuple(steps)


def begin_program(
    kernel: Kernel,
    shapes: Mapping[int, Sequence[int]] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> dict[Any, Any]:
    """Writes the head of a program; returns its parameters, by buffer of the kernel.

    Args:
        kernel: the kernel.
        shapes: by position, the shapes of parameters that are laid out anew.
        attributes: of the program, beside those that each has.
    """
    T.func_name("main")
    T.func_attr({"global_symbol": "main", "tirx.noalias": True, **(attributes or {})})
    taken = {}
    for position, param in enumerate(kernel.func.params):
        shape = (shapes or {}).get(position) or [int(extent) for extent in param.shape]
        taken[param] = T.arg(f"p{position}", T.buffer(list(shape), str(param.dtype)))
    return taken


def store_steps(
    steps: Sequence[Step],
    place: Sequence[Any],
    values: Mapping[Any, Any],
    parameters: Mapping[Any, Any],
) -> dict[Any, Any]:
    """Writes what the steps compute at a place; only what is a parameter is stored.

    Args:
        steps: in order.
        place: indices.
        values: by buffer of the kernel, the expressions that are known at the place.
        parameters: see `begin_program`.

    Returns:
        the values, with those that the steps computed.
    """
    known = dict(values)

    def load(buffer: Any, at: list[Any]) -> Any:
        return known[buffer] if buffer in known else parameters[buffer][tuple(at)]

    may_bind = not any(step.has_condition for step in steps)
    for step in steps:
        for buffer in step.read_often if may_bind else ():
            if buffer in known:  # the program would spell it out each time
                known[buffer] = T.bind(known[buffer])
        known[step.result] = rebuilt(step.value, dict(zip(step.axes, place, strict=True)), load)
        if step.result in parameters:
            put(parameters[step.result], known[step.result], place)
    return known


def element(buffer: Any, place: list[Any], load: Load, producers: Mapping[Any, Step]) -> Any:
    """The element of a buffer; one that a block computes is computed in place.

    Args:
        buffer: of the kernel.
        place: indices.
        load: makes the element of a buffer that no block computes.
        producers: the blocks, by what they write.
    """
    step = producers.get(buffer)
    if step is None:
        return load(buffer, place)
    axes = dict(zip(step.axes, place, strict=True))
    return rebuilt(step.value, axes, lambda b, at: element(b, at, load, producers))


def zero(dtype: str = "float32") -> Any:
    """0 as sums begin."""
    return tirx.const(0, dtype)


def weights_of(index: Any, axes: Sequence[Any]) -> list[int] | None:
    """Of an index that is a weighted sum of axes the weights, and what is added; else None."""
    found = sym.detect_linear_equation(index, list(axes))
    if not found or not all(isinstance(one, tirx.IntImm) for one in found):
        return None
    return [int(one) for one in found]


def first_of_group(group: Any, size: int, extent: int) -> Any:
    """Where a group of elements begins; the last overlaps the one before it, if it must."""
    if extent % size == 0:
        return group * size
    return tirx.min(group * size, extent - size)


def unravelled(number: Any, extents: Sequence[int]) -> list[Any]:
    """The indices of an element by its number, the last index running fastest."""
    place, rest = [], number
    for extent in reversed(extents):
        place.append(tirx.floormod(rest, extent) if extent > 1 else 0)
        rest = tirx.floordiv(rest, extent)
    return place[::-1]


def rebuilt(
    expression: Any,
    axes: Mapping[Any, Any],
    load: Load,
    decide: Callable[[Any], bool | None] = lambda condition: None,
) -> Any:
    """An expression with its axes replaced, and its elements made anew.

    Args:
        expression: the expression.
        axes: by axis what takes its place.
        load: makes an element.
        decide: whether a condition, made anew, is known to hold or not: then the other branch is
            left out.

    Raises:
        ValueError: it has a part of another kind.
    """
    if isinstance(expression, (tirx.IntImm, tirx.FloatImm)):
        return expression
    if isinstance(expression, tirx.Var):
        if expression not in axes:
            raise ValueError("a variable from elsewhere")
        return _as(axes[expression], str(expression.ty.dtype))

    def again(part: Any) -> Any:
        return rebuilt(part, axes, load, decide)

    if isinstance(expression, ir.TensorLoad):
        return load(expression.source, [again(index) for index in expression.indices])
    if (choice := branches(expression)) is not None:
        condition = again(choice[0])
        known = decide(condition)
        if known is not None:
            return again(choice[1] if known else choice[2])
        if isinstance(expression, tirx.Select):
            return tirx.Select(condition, again(choice[1]), again(choice[2]))
    if isinstance(expression, tirx.Cast):
        return tirx.Cast(str(expression.ty.dtype), again(expression.value))
    if isinstance(expression, tirx.Not):
        return tirx.Not(again(expression.a))
    if hasattr(expression, "a") and hasattr(expression, "b"):
        return type(expression)(again(expression.a), again(expression.b))
    if isinstance(expression, ir.Call):
        arguments = [again(argument) for argument in expression.args]
        return ir.Call(expression.op, arguments, expression.attrs, ret_ty=expression.ty)
    raise ValueError(f"{type(expression).__name__} in a kernel's expression")


def has_condition(expression: Any) -> bool:
    """Whether an expression chooses between two values.

    TVM hoists conditions above the variables that they mention: none may be bound then.
    """
    return any(branches(part) is not None for part in expressions(expression))


def mentions(indices: Sequence[Any], axis: Any) -> bool:
    """Whether an axis occurs in one of the indices; None is no axis."""
    return axis is not None and any(
        part.same_as(axis) for index in indices for part in expressions(index)
    )


def same(found: Sequence[Any], wanted: Sequence[Any]) -> bool:
    """Whether expressions are equal, one by one."""
    return len(found) == len(wanted) and all(
        structural_equal(one, other) for one, other in zip(found, wanted, strict=True)
    )


def _as(index: Any, dtype: str) -> Any:
    """An index in the type of another: TVM mixes none."""
    if isinstance(index, int):
        return tirx.const(index, dtype)
    return index if str(index.ty.dtype) == dtype else tirx.Cast(dtype, index)
