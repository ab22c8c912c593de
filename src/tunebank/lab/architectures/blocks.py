"""Blocks that many convolutional networks share."""

# mypy: disallow-subclassing-any=False
# (torch is not followed: its `Module` is Any here)
from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

Activation = Callable[[], nn.Module]


def relu() -> nn.Module:
    """The activation of most networks."""
    return nn.ReLU(inplace=True)


def conv_bn(
    cin: int,
    cout: int,
    kernel: int = 3,
    *,
    stride: int = 1,
    groups: int = 1,
    activation: Activation | None = relu,
) -> nn.Sequential:
    """Convolution with "same" padding for odd kernels, batch norm, activation."""
    conv = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False)
    layers: list[nn.Module] = [conv, nn.BatchNorm2d(cout)]
    if activation is not None:
        layers.append(activation())
    return nn.Sequential(*layers)


class Classifier(nn.Module):
    """Features, global average, one dense layer: (N, 3, H, W) → (N, classes)."""

    def __init__(self, features: nn.Module, channels: int, classes: int = 1000) -> None:
        super().__init__()
        self.features = features
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return self.head(self.pool(self.features(x)).flatten(1))


class SqueezeExcite(nn.Module):
    """Channels weighted by what the whole image says: Hu et al., arXiv 1709.01507."""

    def __init__(self, channels: int, squeezed: int, activation: Activation) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.activation = activation()
        self.expand = nn.Conv2d(squeezed, channels, 1)
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → same."""
        weights = self.expand(self.activation(self.reduce(self.pool(x))))
        return x * self.gate(weights)
