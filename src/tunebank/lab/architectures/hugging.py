"""Models of the `transformers` library, from their configurations: nothing is downloaded.

Their own initialisation is kept. Layer norms hold activations near 1 in most of them.
"""

# mypy: disallow-subclassing-any=False
# (torch is not followed: its `Module` is Any here)
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from tunebank.lab.architectures.network import SEED, Network, calibrated


class _Plain(nn.Module):
    """A model that gives tensors by the names asked for.

    It takes its inputs by position, as exporters to ONNX give them, or by name.
    """

    def __init__(self, model: nn.Module, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self._inputs, self._outputs = inputs, outputs
        self._fixed: dict[str, Any] = {}

    def forward(self, *tensors: Tensor, **named: Tensor) -> tuple[Tensor, ...]:
        given = named or dict(zip(self._inputs, tensors, strict=True))
        results = self.model(**given, **self._fixed)
        return tuple(results[name] for name in self._outputs)


def wrapped(
    make: Callable[[], nn.Module], inputs: Mapping[str, Tensor], *outputs: str, **fixed: Any
) -> Network:
    """A library's model as a network.

    Args:
        make: makes the model with random weights.
        inputs: example inputs by the names of its parameters.
        outputs: which fields of its result are wanted.
        fixed: further arguments of its `forward`.
    """
    torch.manual_seed(SEED)
    module = _Plain(make(), tuple(inputs), outputs)
    module._fixed = fixed
    return replace(calibrated(module, inputs, *outputs), by_keyword=True)
