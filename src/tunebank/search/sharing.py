"""Kernels that are called with the same weights, and how a schedule packs them.

A model compiled for several sets of input shapes has a kernel of its own for each of them, but
one set of weights:

    main      conv(x of 1 x 14 x 14 x 64, w)
    main_1    conv(x of 4 x 14 x 14 x 64, w)      another kernel, the same constant

A schedule may have its weight packed ahead. Two schedules that pack `w` in two ways have it
stored twice; if they pack it alike it is stored once. A packing is compared as a text that
numbers its axes, so that names don't matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tvm import ir, tirx

from tunebank.kernel import Kernel
from tunebank.measure.packing import Packing, WinogradPacking, packings
from tunebank.model import Model, called_name, kernel_calls, main_functions

PLAIN = ""
"""The packing of a weight that stays as it is."""

_NEGLIGIBLE_SHARE = 0.005
"""Groups that hold less of the shared weights than this, all together, may store them twice."""

_Place = tuple[str, int]
"""A parameter: its kernel's key, and its position."""


@dataclass(frozen=True)
class WeightGroup:
    """Kernels that are called with the same weights.

    Attributes:
        positions: by kernel key, heaviest kernel first, which parameter takes the weights.
        weight_bytes: memory that the distinct weights take.
    """

    positions: Mapping[str, int]
    weight_bytes: int


def weight_groups(model: Model) -> tuple[WeightGroup, ...]:
    """The groups of two or more kernels; none if the model has one set of input shapes.

    A kernel is in one group at most, by the largest of its parameters whose weights are shared:
    what else it shares, a bias say, is small beside it.
    """
    if len(model.functions) < 2:
        return ()
    kernels = {kernel.key: kernel for kernel in model.kernels}
    users = _users(model, kernels)
    largest = _largest_shared(users, kernels)
    groups = []
    for weights, keys in _connected(users, largest):
        positions = {key: largest[key] for key in kernels if key in keys}  # heaviest first
        first, position = next(iter(positions.items()))
        size = len(weights) * kernels[first].parameter_bytes(position)
        groups.append(WeightGroup(positions, size))
    return _that_matter(groups)


def packing_at(module: ir.IRModule, position: int) -> str:
    """How a scheduled program wants a parameter packed, as text.

    `PLAIN` if not at all, or in a way that is no copy: that is not done ahead.
    """
    for packing in packings(module):
        if packing.position == position:
            try:
                return packing_text(packing)
            except ValueError:
                return PLAIN
    return PLAIN


def packing_text(packing: Packing) -> str:
    """A text that is equal for equal packings, whatever their variables are called.

    `PLAIN` for one that changes nothing.

    Raises:
        ValueError: the packing is no copy.
    """
    if isinstance(packing, WinogradPacking):
        return f"winograd {packing.outputs} {packing.window} {packing.columns}"
    store = packing.block.body
    if not isinstance(store, tirx.BufferStore) or not isinstance(store.value, ir.TensorLoad):
        raise ValueError("the packing of a weight is no copy")
    axes = packing.block.iter_vars
    names = {axis.var: f"v{index}" for index, axis in enumerate(axes)}
    wanted = _indexed(store.buffer, store.indices, names)
    given = _indexed(store.value.source, store.value.indices, names)
    extents = ",".join(str(int(axis.dom.extent)) for axis in axes)
    return PLAIN if wanted == given else f"({extents}) {given} -> {wanted}"


def _indexed(buffer: Any, indices: Any, names: Mapping[Any, str]) -> str:
    shape = ",".join(str(int(extent)) for extent in buffer.shape)
    return f"({shape})[{','.join(_expression(index, names) for index in indices)}]"


def _expression(expr: Any, names: Mapping[Any, str]) -> str:
    """Text of an index.

    Raises:
        ValueError: it does more than arithmetic on the axes.
    """
    if isinstance(expr, tirx.IntImm):
        return str(int(expr))
    if isinstance(expr, tirx.Var):
        return names[expr]
    if not hasattr(expr, "a") or not hasattr(expr, "b"):
        raise ValueError(f"{type(expr).__name__} in an index")
    operands = (_expression(expr.a, names), _expression(expr.b, names))
    return f"{type(expr).__name__}({','.join(operands)})"


def _users(model: Model, kernels: Mapping[str, Kernel]) -> dict[Any, set[_Place]]:
    """By constant, the layout-free parameters that it is passed for."""
    users: dict[Any, set[_Place]] = {}
    functions = [model.module[var] for var in main_functions(model.module)]
    for call in (call for func in functions for call in kernel_calls(func)):
        key = model.kernel_of.get(called_name(call), "")
        arguments = getattr(call.args[1], "fields", ())
        if key not in kernels:
            continue
        for position in sorted(kernels[key].layout_free):
            weight = arguments[position] if position < len(arguments) else None
            if hasattr(weight, "value"):  # else the model computes it
                users.setdefault(weight, set()).add((key, position))
    return users


def _largest_shared(
    users: Mapping[Any, set[_Place]], kernels: Mapping[str, Kernel]
) -> dict[str, int]:
    """By kernel, the largest parameter with a constant that another kernel takes too."""
    shared = sorted(
        {
            place
            for places in users.values()
            if len({key for key, _ in places}) > 1
            for place in places
        },
        key=lambda place: (kernels[place[0]].parameter_bytes(place[1]), -place[1]),
    )
    return dict(shared)  # of several of a kernel the last stays


def _connected(
    users: Mapping[Any, set[_Place]], largest: Mapping[str, int]
) -> Iterator[tuple[set[Any], set[str]]]:
    """Constants and kernels that hang together by these parameters; two kernels or more."""
    parts: list[tuple[set[Any], set[str]]] = []
    for weight, places in users.items():
        keys = {key for key, position in places if largest.get(key) == position}
        if not keys:
            continue
        weights = {weight}
        for part in [part for part in parts if part[1] & keys]:
            parts.remove(part)
            weights |= part[0]
            keys |= part[1]
        parts.append((weights, keys))
    return (part for part in parts if len(part[1]) > 1)


def _that_matter(groups: list[WeightGroup]) -> tuple[WeightGroup, ...]:
    """The groups with most of the weights, largest first."""
    ordered = sorted(groups, key=lambda group: group.weight_bytes)
    total = sum(group.weight_bytes for group in ordered)
    small = 0
    while ordered and small + ordered[0].weight_bytes <= _NEGLIGIBLE_SHARE * total:
        small += ordered.pop(0).weight_bytes
    return tuple(reversed(ordered))
