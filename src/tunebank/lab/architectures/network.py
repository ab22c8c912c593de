"""A network with its example inputs, and how its weights are drawn.

Weights are random. For numbers to be comparable, activations must stay near 1 and outputs must
follow inputs; so layers get He's initialisation (arXiv 1502.01852), and batch norms the
statistics that the network itself has on random inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

SEED = 0
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class Network:
    """A network ready to be exported.

    Attributes:
        module: the network, in evaluation mode.
        inputs: example inputs in order, by name.
        outputs: names of its outputs in order.
        by_keyword: whether it can be called with its inputs by name.
    """

    module: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...] = ("output",)
    by_keyword: bool = False

    def to(self, dtype: torch.dtype) -> Network:
        """The network in another floating-point type; integer inputs stay."""
        inputs = {
            name: tensor.to(dtype) if tensor.is_floating_point() else tensor
            for name, tensor in self.inputs.items()
        }
        return Network(self.module.to(dtype), inputs, self.outputs, self.by_keyword)


def drawn(module: nn.Module, inputs: Mapping[str, Tensor], *outputs: str) -> Network:
    """A network of our own with all its weights drawn."""
    generator = torch.Generator().manual_seed(SEED)
    for layer in module.modules():
        _draw_weights(layer, generator)
    return calibrated(module, inputs, *outputs)


def calibrated(module: nn.Module, inputs: Mapping[str, Tensor], *outputs: str) -> Network:
    """A network whose batch norms know the statistics of their inputs."""
    module.eval()
    norms = [layer for layer in module.modules() if isinstance(layer, _BATCH_NORMS)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    if norms:
        with torch.no_grad():
            module(*inputs.values())
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval()
        norm.momentum = momentum
    return Network(module, inputs, outputs or ("output",))


def image(channels: int, height: int, width: int, *, batch: int = 1) -> dict[str, Tensor]:
    """One input `x`, (batch, channels, height, width), normal."""
    generator = torch.Generator().manual_seed(SEED)
    return {"x": torch.randn(batch, channels, height, width, generator=generator)}


def tokens(length: int, vocabulary: int) -> Tensor:
    """Token ids, (1, length)."""
    generator = torch.Generator().manual_seed(SEED)
    return torch.randint(0, vocabulary, (1, length), generator=generator)


def _draw_weights(layer: nn.Module, generator: torch.Generator) -> None:
    if isinstance(layer, _BATCH_NORMS):
        assert layer.weight is not None
        nn.init.uniform_(layer.weight, 0.9, 1.1, generator=generator)
        nn.init.uniform_(layer.bias, -0.1, 0.1, generator=generator)
    elif isinstance(layer, nn.modules.conv._ConvNd | nn.Linear):
        deviation = (2.0 / _fan_in(layer)) ** 0.5
        nn.init.normal_(layer.weight, 0.0, deviation, generator=generator)
        if layer.bias is not None:
            nn.init.uniform_(layer.bias, -0.1, 0.1, generator=generator)


def _fan_in(layer: nn.Module) -> float:
    """How many products go into one output."""
    weight = layer.weight
    if isinstance(layer, nn.modules.conv._ConvTransposeNd):
        # (in, out / groups, ...): a stride spreads the window over as many outputs.
        taps = weight[0, 0].numel() / float(torch.tensor(layer.stride).prod())
        return max(1.0, float(weight.shape[0] / layer.groups * taps))
    return float(weight[0].numel())
