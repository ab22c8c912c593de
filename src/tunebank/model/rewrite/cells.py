"""One step of a recurrent layer, written with elementwise operators and one or two products.

The equations are those of the ONNX operators' documentation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tunebank.model.rewrite.activations import Activation
from tunebank.model.rewrite.replacement import Replacement

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
"""Gates of each kind of layer: products with R of its size H."""


@dataclass(frozen=True)
class Layer:
    """One recurrent node.

    Attributes:
        kind: LSTM, GRU or RNN.
        steps: T.
        batch: B.
        entering: I.
        hidden: H.
        elem_type: data type of all values.
        directions: what the node's `direction` asks for, in the order of the weights.
        clip: bound of what goes into an activation; None for none.
        linear_before_reset: GRU applies the reset gate after the product with R.
        input_forget: LSTM couples the forget gate with the input gate.
    """

    kind: str
    steps: int
    batch: int
    entering: int
    hidden: int
    elem_type: int
    directions: tuple[str, ...]
    clip: float | None
    linear_before_reset: bool
    input_forget: bool

    @property
    def gates(self) -> int:
        """Gates of a step: products with R of its size H."""
        return GATES[self.kind]


@dataclass(frozen=True)
class Weights:
    """The weights of a step, and its activations. Of two directions all have a dimension before.

    Attributes:
        recurrence: Rᵀ (H, G·H).
        bias: that of the recurrence (1, G·H), or None; GRU needs it apart from the input's.
        peephole: P (1, 3·H), or None.
        activations: in the order of the node's attribute.
        axis: the last one, of gates side by side.
    """

    recurrence: str
    bias: str | None
    peephole: str | None
    activations: tuple[Activation, ...]
    axis: int


Step = Callable[[str, str, str], tuple[str, str]]
"""(X·Wᵀ + b of this step, h, c) → (h, c); c is "" where the layer has none."""


def step_of(layer: Layer, weights: Weights, new: Replacement) -> Step:
    """How one step is written."""
    cells = {"LSTM": _lstm_step, "GRU": _gru_step, "RNN": _rnn_step}
    return cells[layer.kind](layer, weights, new)


def _rnn_step(layer: Layer, weights: Weights, new: Replacement) -> Step:
    (f,) = weights.activations

    def step(x: str, h: str, c: str) -> tuple[str, str]:
        total = new.op("Add", new.op("MatMul", h, weights.recurrence), x)
        return f(new, _clipped(total, layer, new), layer.elem_type), ""

    return step


def _lstm_step(layer: Layer, weights: Weights, new: Replacement) -> Step:
    f, g, h_act = weights.activations
    peepholes = None
    if weights.peephole:
        peepholes = new.split(weights.peephole, weights.axis, [layer.hidden] * 3)  # of i, o, f

    def gate(total: str, number: int, c: str, peephole: int | None, act: Activation) -> str:
        part = _gate(total, number, layer, weights.axis, new)
        if peepholes is not None and peephole is not None:
            part = new.op("Add", part, new.op("Mul", peepholes[peephole], c))
        return act(new, _clipped(part, layer, new), layer.elem_type)

    def step(x: str, h: str, c: str) -> tuple[str, str]:
        total = new.op("Add", new.op("MatMul", h, weights.recurrence), x)
        entering = gate(total, 0, c, 0, f)
        if layer.input_forget:
            kept = new.op("Sub", new.scalar(1.0, layer.elem_type), entering)
        else:
            kept = gate(total, 2, c, 2, f)
        fresh = gate(total, 3, c, None, g)
        next_c = new.op("Add", new.op("Mul", kept, c), new.op("Mul", entering, fresh))
        leaving = gate(total, 1, next_c, 1, f)
        next_h = new.op("Mul", leaving, h_act(new, next_c, layer.elem_type))
        # Side by side and apart again both are results of one kernel.
        both = new.concat([next_h, next_c], weights.axis)
        next_h, next_c = new.split(both, weights.axis, [layer.hidden] * 2)
        return next_h, next_c

    return step


def _gru_step(layer: Layer, weights: Weights, new: Replacement) -> Step:
    f, g = weights.activations
    hidden = layer.hidden
    if layer.linear_before_reset:
        gates, candidate = weights.recurrence, ""
    else:
        gates, candidate = new.split(weights.recurrence, weights.axis, [2 * hidden, hidden])

    def gate(total: str, number: int) -> str:
        return _gate(total, number, layer, weights.axis, new)

    def act(total: str, activation: Activation) -> str:
        return activation(new, _clipped(total, layer, new), layer.elem_type)

    def biased(total: str, part: slice | None) -> str:
        if weights.bias is None:
            return total
        if part is None:
            return new.op("Add", total, weights.bias)
        return new.op("Add", total, new.slice(weights.bias, weights.axis, part.start, part.stop))

    def step(x: str, h: str, c: str) -> tuple[str, str]:
        whole = None if layer.linear_before_reset else slice(0, 2 * hidden)
        product = biased(new.op("MatMul", h, gates), whole)
        update = act(new.op("Add", gate(x, 0), gate(product, 0)), f)
        reset = act(new.op("Add", gate(x, 1), gate(product, 1)), f)
        if layer.linear_before_reset:
            inner = new.op("Mul", reset, gate(product, 2))
        else:
            inner = new.op("MatMul", new.op("Mul", reset, h), candidate)
            inner = biased(inner, slice(2 * hidden, 3 * hidden))
        fresh = act(new.op("Add", gate(x, 2), inner), g)
        # (1 - z)·n + z·h with one product less
        return new.op("Add", fresh, new.op("Mul", update, new.op("Sub", h, fresh))), ""

    return step


def _gate(total: str, number: int, layer: Layer, axis: int, new: Replacement) -> str:
    return new.slice(total, axis, number * layer.hidden, (number + 1) * layer.hidden)


def _clipped(total: str, layer: Layer, new: Replacement) -> str:
    if layer.clip is None:
        return total
    return new.clip(total, -layer.clip, layer.clip, layer.elem_type)
