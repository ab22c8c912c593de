"""LSTM, GRU and RNN as matrix products and elementwise operators.

What a step takes from the input doesn't depend on the step before: for the whole sequence it is
one product, outside of the loop. The loop over time is unrolled; each of its steps is made
of the same operators on the same shapes, and so of the same few kernels.

    X (T, B, I) ─▶ X·Wᵀ + b (T, B, G·H) ─split─▶ step 0 ─h,c─▶ step 1 ─▶ … ─▶ Y (T, D, B, H)

T is time, B the batch, I and H the sizes of input and state, G the number of gates (4, 3, 1),
D the number of directions; two of them take their steps together, see `tracks.py`.
"""

from __future__ import annotations

from typing import Any

import onnx

from tunebank.errors import ModelError
from tunebank.model.rewrite.activations import Activation, activation_of
from tunebank.model.rewrite.cells import Layer, Step, Weights, step_of
from tunebank.model.rewrite.graph import Graph, attributes_of, described
from tunebank.model.rewrite.replacement import Replacement
from tunebank.model.rewrite.tracks import REVERSING_OPSET, Track

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
    lasting = _lasting(given["sequence_lens"], layer, graph, new)
    sequences, hiddens, cells = [], [], []
    for track, activations in _tracks(node, layer, new):
        entering, weights = _weights(given, track, activations, x)
        masks = track.steps([lasting] * len(entering), 1) if lasting else None
        h = _initial(given["initial_h"], track, batch_first)
        c = _initial(given["initial_c"], track, batch_first)
        step = step_of(layer, weights, new)
        steps = track.steps(entering, layer.gates * layer.hidden)
        states, h, c = _run(step, steps, h, c, masks, layer, new)
        sequences.append(track.sequence(states))
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


def _tracks(
    node: onnx.NodeProto, layer: Layer, new: Replacement
) -> list[tuple[Track, tuple[Activation, ...]]]:
    """Which directions go together, with their activations: both, if these are the same."""
    each = [_activations(node, index, layer) for index in range(len(layer.directions))]
    if len(each) > 1 and each[0] == each[1] and new.graph.opset >= REVERSING_OPSET:
        return [(Track((0, 1), layer, new), each[0])]
    return [(Track((index,), layer, new), one) for index, one in enumerate(each)]


def _weights(
    given: dict[str, str], track: Track, activations: tuple[Activation, ...], x: str
) -> tuple[list[str], Weights]:
    """What each direction takes from the input (T·B, G·H), and the weights of a step."""
    layer, new, lead = track.layer, track.new, track.lead
    width, count = layer.gates * layer.hidden, len(track.directions)
    weight = new.reshape(track.part_of(given["W"]), [count * width, layer.entering])
    recurrence = new.reshape(track.part_of(given["R"]), [*lead, width, layer.hidden])
    projected = new.op("MatMul", x, new.transpose(weight, [1, 0]))
    inner = None
    if given["B"]:
        outer, inner = new.split(track.part_of(given["B"]), 1, [width, width])
        projected = new.op("Add", projected, new.reshape(outer, [count * width]))
        if layer.kind != "GRU":  # there the bias of the recurrence may lie behind the reset gate
            projected = new.op("Add", projected, new.reshape(inner, [count * width]))
            inner = None
    peephole = track.part_of(given["P"]) if given["P"] else None
    weights = Weights(
        recurrence=new.transpose(recurrence, [0, 2, 1] if lead else [1, 0]),
        bias=inner and new.reshape(inner, [*lead, 1, width]),
        peephole=peephole and new.reshape(peephole, [*lead, 1, 3 * layer.hidden]),
        activations=activations,
        axis=len(lead) + 1,
    )
    return new.split(projected, 1, [width] * count), weights


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


def _initial(state: str, track: Track, batch_first: bool) -> str:
    """A track's state before the first step ([2,] B, H)."""
    layer, new = track.layer, track.new
    shape = [*track.lead, layer.batch, layer.hidden]
    if not state:
        return new.op("Expand", new.scalar(0.0, layer.elem_type), new.ints(shape))
    if batch_first:
        state = new.transpose(state, [1, 0, 2])
    return new.reshape(track.part_of(state), shape)


def _lasting(lengths: str, layer: Layer, graph: Graph, new: Replacement) -> str:
    """Whether each sequence of the batch lasts so long (T·B, 1); "" if all are full."""
    if not lengths:
        return ""
    known = graph.constant(lengths)
    if known is not None and (known >= layer.steps).all():
        return ""
    column = new.unsqueeze(lengths, [1])
    lasting = new.op("Less", new.constant(list(range(layer.steps)), "int32"), column)  # (B, T)
    return new.reshape(new.transpose(lasting, [1, 0]), [layer.steps * layer.batch, 1])


def _run(
    step: Step,
    entering: list[str],
    h: str,
    c: str,
    masks: list[str] | None,
    layer: Layer,
    new: Replacement,
) -> tuple[list[str], str, str]:
    """All steps of a track: the states after each, and the last h and c.

    Beyond the end of a sequence its state stays as it is, and its output is 0. Backwards
    that comes first, so that the sequence starts at its own last step.
    """
    states = []
    for number, x in enumerate(entering):
        next_h, next_c = step(x, h, c)
        if masks is None:
            states.append(next_h)
        else:
            zero = new.scalar(0.0, layer.elem_type)
            states.append(new.op("Where", masks[number], next_h, zero))
            next_h = new.op("Where", masks[number], next_h, h)
            next_c = new.op("Where", masks[number], next_c, c) if next_c else ""
        h, c = next_h, next_c
    return states, h, c


def _write_outputs(
    node: onnx.NodeProto,
    graph: Graph,
    new: Replacement,
    layer: Layer,
    batch_first: bool,
    results: tuple[list[str], list[str], list[str]],
) -> None:
    """Y (T, D, B, H), Y_h and Y_c (D, B, H); batch first: (B, T, D, H) and (B, D, H)."""
    sequences, *lasts = results
    if graph.is_wanted(node, 0):
        y = new.concat(sequences, 1)
        perm = [2, 0, 1, 3] if batch_first else None
        new.transpose(y, perm, out=node.output[0]) if perm else new.identity(y, node.output[0])
    for index, states in enumerate(lasts, start=1):
        if not graph.is_wanted(node, index):
            continue
        shape = [len(layer.directions), layer.batch, layer.hidden]
        last = new.reshape(new.concat(states, 0), shape)
        if batch_first:
            new.transpose(last, [1, 0, 2], out=node.output[index])
        else:
            new.identity(last, node.output[index])
