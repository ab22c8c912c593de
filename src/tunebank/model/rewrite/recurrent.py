"""LSTM, GRU and RNN as matrix products and elementwise operators.

What a step takes from the input doesn't depend on the step before: for the whole sequence it is
one product, outside of the loop. The loop over time is unrolled; each of its steps is made
of the same operators on the same shapes, and so of the same few kernels.

    X (T, B, I) ─▶ X·Wᵀ + b (T, B, G·H) ─split─▶ step 0 ─h,c─▶ step 1 ─▶ … ─▶ Y (T, D, B, H)

T is time, B the batch, I and H the sizes of input and state, G the number of gates (4, 3, 1),
D the number of directions.
"""

from __future__ import annotations

from typing import Any

import onnx

from tunebank.errors import ModelError
from tunebank.model.rewrite.activations import Activation, activation_of
from tunebank.model.rewrite.cells import Direction, Layer, Step, step_of
from tunebank.model.rewrite.graph import Graph, attributes_of, described
from tunebank.model.rewrite.replacement import Replacement
from tunebank.model.rewrite.sequence import concat_many, split_many

MAX_STEPS = 1024
"""Time steps of a sequence times directions that are unrolled: each adds some 10 nodes."""

_INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
_DEFAULTS = {
    "LSTM": ["Sigmoid", "Tanh", "Tanh"],
    "GRU": ["Sigmoid", "Tanh"],
    "RNN": ["Tanh"],
}


def unroll_recurrent(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """LSTM, GRU or RNN as operators on time steps.

    Raises:
        ModelError: more time steps than are unrolled.
    """
    given = dict.fromkeys(_INPUTS, "")
    given.update(zip(_INPUTS, node.input, strict=False))
    attributes = attributes_of(node)
    batch_first = bool(attributes.get("layout", 0))
    layer = _layer(node, graph, attributes)
    x = new.transpose(given["X"], [1, 0, 2]) if batch_first else given["X"]
    x = new.reshape(x, [layer.steps * layer.batch, layer.entering])
    masks = _masks(given["sequence_lens"], layer, graph, new)
    sequences, hiddens, cells = [], [], []
    for index, direction in enumerate(layer.directions):
        weights, projected = _direction(given, index, x, layer, node, graph, new)
        h = _initial(given["initial_h"], index, layer, batch_first, new)
        c = _initial(given["initial_c"], index, layer, batch_first, new)
        step = step_of(layer, weights, new)
        states, h, c = _run(step, projected, h, c, masks, direction == "reverse", layer, new)
        sequences.append(states)
        hiddens.append(h)
        cells.append(c)
    _write_outputs(node, graph, new, layer, batch_first, (sequences, hiddens, cells))
    return True


def _layer(node: onnx.NodeProto, graph: Graph, attributes: dict[str, Any]) -> Layer:
    shape = graph.known_shape(node.input[0], node)
    steps, batch = (shape[1], shape[0]) if attributes.get("layout", 0) else shape[:2]
    direction = str(attributes.get("direction", "forward")).lower()
    directions = ("forward", "reverse") if direction == "bidirectional" else (direction,)
    if steps * len(directions) > MAX_STEPS:
        raise ModelError(
            f"{described(node)}: {steps} time steps in {len(directions)} direction(s), "
            f"at most {MAX_STEPS} are unrolled; give the model shorter sequences"
        )
    recurrence = graph.known_shape(node.input[2], node)
    return Layer(
        kind=node.op_type,
        steps=steps,
        batch=batch,
        entering=shape[2],
        hidden=recurrence[2],
        elem_type=graph.dtype(node.input[0]),
        directions=directions,
        clip=attributes.get("clip") or None,
        linear_before_reset=bool(attributes.get("linear_before_reset", 0)),
        input_forget=bool(attributes.get("input_forget", 0)),
    )


def _direction(
    given: dict[str, str],
    index: int,
    x: str,
    layer: Layer,
    node: onnx.NodeProto,
    graph: Graph,
    new: Replacement,
) -> tuple[Direction, list[str]]:
    """Weights of a direction, and what each step takes from the input (B, G·H)."""
    width = layer.gates * layer.hidden
    weight = new.transpose(_of_direction(given["W"], index, layer, new), [1, 0])
    recurrence = new.transpose(_of_direction(given["R"], index, layer, new), [1, 0])
    bias = _of_direction(given["B"], index, layer, new) if given["B"] else None
    projected = new.op("MatMul", x, weight)
    inner = None
    if bias is not None:
        outer, inner = new.split(bias, 0, [width, width])
        projected = new.op("Add", projected, outer)
        if layer.kind != "GRU":  # there the bias of the recurrence may lie behind the reset gate
            projected, inner = new.op("Add", projected, inner), None
    weights = Direction(
        recurrence=recurrence,
        bias=inner,
        peephole=_of_direction(given["P"], index, layer, new) if given["P"] else None,
        activations=_activations(node, index, layer),
    )
    return weights, split_many(new, projected, layer.steps, extent=layer.batch)


def _of_direction(weights: str, index: int, layer: Layer, new: Replacement) -> str:
    """A direction's part of weights whose first dimension counts directions."""
    if len(layer.directions) > 1:
        weights = new.slice(weights, 0, index, index + 1)
    return new.squeeze(weights, [0])


def _activations(node: onnx.NodeProto, index: int, layer: Layer) -> tuple[Activation, ...]:
    """The activations of a direction with their parameters."""
    attributes = attributes_of(node)
    count = len(_DEFAULTS[layer.kind])
    names = attributes.get("activations") or _DEFAULTS[layer.kind] * len(layer.directions)
    alphas = list(attributes.get("activation_alpha", []))
    betas = list(attributes.get("activation_beta", []))
    chosen = []
    # Parameters stand in one list each, for those activations alone that have one.
    for name in names:
        chosen.append(activation_of(name, alphas, betas, node))
    return tuple(chosen[index * count : (index + 1) * count])


def _initial(state: str, index: int, layer: Layer, batch_first: bool, new: Replacement) -> str:
    """A direction's state before the first step (B, H)."""
    if not state:
        zero = new.scalar(0.0, layer.elem_type)
        return new.op("Expand", zero, new.ints([layer.batch, layer.hidden]))
    axis = 1 if batch_first else 0
    if len(layer.directions) > 1:
        state = new.slice(state, axis, index, index + 1)
    return new.reshape(state, [layer.batch, layer.hidden])


def _masks(lengths: str, layer: Layer, graph: Graph, new: Replacement) -> list[str] | None:
    """For each step, which sequences of the batch last so long (B, 1); None if all are full."""
    if not lengths:
        return None
    known = graph.constant(lengths)
    if known is not None and (known >= layer.steps).all():
        return None
    column = new.unsqueeze(lengths, [1])
    lasting = new.op("Less", new.constant(list(range(layer.steps)), "int32"), column)  # (B, T)
    flat = new.reshape(new.transpose(lasting, [1, 0]), [layer.steps * layer.batch, 1])
    return split_many(new, flat, layer.steps, extent=layer.batch)


def _run(
    step: Step,
    projected: list[str],
    h: str,
    c: str,
    masks: list[str] | None,
    backwards: bool,
    layer: Layer,
    new: Replacement,
) -> tuple[list[str], str, str]:
    """All steps of a direction: states in the order of time, and the last h and c.

    Beyond the end of a sequence its state stays as it is, and its output is 0. Backwards
    that comes first, so that the sequence starts at its own last step.
    """
    states = [""] * layer.steps
    order = range(layer.steps)
    for time in reversed(order) if backwards else order:
        next_h, next_c = step(projected[time], h, c)
        if masks is None:
            states[time] = next_h
        else:
            zero = new.scalar(0.0, layer.elem_type)
            states[time] = new.op("Where", masks[time], next_h, zero)
            next_h = new.op("Where", masks[time], next_h, h)
            next_c = new.op("Where", masks[time], next_c, c) if next_c else ""
        h, c = next_h, next_c
    return states, h, c


def _write_outputs(
    node: onnx.NodeProto,
    graph: Graph,
    new: Replacement,
    layer: Layer,
    batch_first: bool,
    results: tuple[list[list[str]], list[str], list[str]],
) -> None:
    """Y (T, D, B, H), Y_h and Y_c (D, B, H); batch first: (B, T, D, H) and (B, D, H)."""
    sequences, *lasts = results
    if graph.is_wanted(node, 0):
        shape = [layer.steps, 1, layer.batch, layer.hidden]
        parts = [new.reshape(concat_many(new, states, 0), shape) for states in sequences]
        y = new.concat(parts, 1)
        perm = [2, 0, 1, 3] if batch_first else None
        new.transpose(y, perm, out=node.output[0]) if perm else new.identity(y, node.output[0])
    for index, states in enumerate(lasts, start=1):
        if not graph.is_wanted(node, index):
            continue
        axis = 1 if batch_first else 0
        parts = [new.unsqueeze(state, [axis]) for state in states]
        new.op("Concat", *parts, axis=axis, out=node.output[index])
