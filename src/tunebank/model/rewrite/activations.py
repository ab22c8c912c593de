"""The activations that recurrent operators name in an attribute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import onnx

from tunebank.errors import ModelError
from tunebank.model.rewrite.graph import described
from tunebank.model.rewrite.replacement import Replacement


@dataclass(frozen=True)
class Activation:
    """An activation with its parameters.

    Attributes:
        write: appends its nodes; takes the parameters and what a call takes.
        parameters: such as alpha and beta.
    """

    write: Callable[..., str]
    parameters: tuple[Any, ...]

    def __call__(self, new: Replacement, x: str, elem_type: int) -> str:
        """Appends the activation of a value of a data type; returns its result's name."""
        return self.write(*self.parameters, new, x, elem_type)


_PLAIN = {"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid"}
_PLAIN |= {"softsign": "Softsign", "softplus": "Softplus"}

# Operators of the same name, with the default of each parameter.
_WITH_ALPHA = {"leakyrelu": ("LeakyRelu", 0.01), "elu": ("Elu", 1.0)}
_WITH_ALPHA |= {"thresholdedrelu": ("ThresholdedRelu", 1.0)}
_AFFINE_DEFAULTS = {"affine": (1.0, 0.0), "scaledtanh": (1.0, 1.0), "hardsigmoid": (0.2, 0.5)}


def activation_of(
    name: str, alphas: list[float], betas: list[float], node: onnx.NodeProto
) -> Activation:
    """An activation by name; takes its parameters, if it has any, off the front of the lists.

    Raises:
        ModelError: ONNX has no such activation.
    """
    key = name.lower()
    if key in _PLAIN:
        return Activation(_plain, (_PLAIN[key],))
    if key in _WITH_ALPHA:
        operator, default = _WITH_ALPHA[key]
        return Activation(_with_alpha, (operator, _next(alphas, default)))
    if key in _AFFINE_DEFAULTS:
        alpha, beta = _AFFINE_DEFAULTS[key]
        written = {"affine": _affine, "scaledtanh": _scaled_tanh, "hardsigmoid": _hard_sigmoid}
        return Activation(written[key], (_next(alphas, alpha), _next(betas, beta)))
    raise ModelError(f"{described(node)}: unknown activation {name!r}; ONNX has none of that name")


def _next(values: list[float], default: float) -> float:
    return values.pop(0) if values else default


def _plain(operator: str, new: Replacement, x: str, elem_type: int) -> str:
    return new.op(operator, x)


def _with_alpha(operator: str, alpha: float, new: Replacement, x: str, elem_type: int) -> str:
    return new.op(operator, x, alpha=alpha)


def _affine(alpha: float, beta: float, new: Replacement, x: str, elem_type: int) -> str:
    scaled = new.op("Mul", x, new.scalar(alpha, elem_type))
    return new.op("Add", scaled, new.scalar(beta, elem_type))


def _scaled_tanh(alpha: float, beta: float, new: Replacement, x: str, elem_type: int) -> str:
    inner = new.op("Tanh", new.op("Mul", x, new.scalar(beta, elem_type)))
    return new.op("Mul", inner, new.scalar(alpha, elem_type))


def _hard_sigmoid(alpha: float, beta: float, new: Replacement, x: str, elem_type: int) -> str:
    return new.op("HardSigmoid", x, alpha=alpha, beta=beta)
