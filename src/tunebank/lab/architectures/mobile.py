"""Small classifiers: MobileNetV2, MnasNet, EfficientNet, ShuffleNetV2."""

# mypy: disallow-subclassing-any=False
# (torch is not followed: its `Module` is Any here)
from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tunebank.lab.architectures.blocks import Activation, Classifier, SqueezeExcite, conv_bn, relu
from tunebank.lab.architectures.network import Network, drawn, image


@dataclass(frozen=True)
class _Stage:
    """Like blocks in a row; the stride is the first's.

    Attributes:
        expand: how many times wider a block is inside.
        width: channels that it gives.
        count: blocks.
        stride: of the first block.
        kernel: of the depthwise convolution.
    """

    expand: int
    width: int
    count: int
    stride: int
    kernel: int = 3


class _InvertedBottleneck(nn.Module):
    """Wide inside, depthwise convolution, linear at its end: arXiv 1801.04381, section 3.4."""

    def __init__(
        self, cin: int, stage: _Stage, stride: int, activation: Activation, *, squeeze: bool
    ) -> None:
        super().__init__()
        inner = cin * stage.expand
        layers: list[nn.Module] = []
        if stage.expand != 1:
            layers.append(conv_bn(cin, inner, 1, activation=activation))
        layers.append(
            conv_bn(inner, inner, stage.kernel, stride=stride, groups=inner, activation=activation)
        )
        if squeeze:
            layers.append(SqueezeExcite(inner, max(1, cin // 4), activation))
        layers.append(conv_bn(inner, stage.width, 1, activation=None))
        self.branch = nn.Sequential(*layers)
        self.residual = stride == 1 and cin == stage.width

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x) if self.residual else self.branch(x)


def _blocks(
    cin: int, stages: tuple[_Stage, ...], activation: Activation, *, squeeze: bool = False
) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for stage in stages:
        for index in range(stage.count):
            stride = stage.stride if index == 0 else 1
            layers.append(_InvertedBottleneck(cin, stage, stride, activation, squeeze=squeeze))
            cin = stage.width
    return layers


def _relu6() -> nn.Module:
    return nn.ReLU6(inplace=True)


def _silu() -> nn.Module:
    return nn.SiLU(inplace=True)


def _mobilenet_v2() -> Network:
    """MobileNetV2, width 1.0: Sandler et al., arXiv 1801.04381, table 2."""
    stages = (
        _Stage(1, 16, 1, 1),
        _Stage(6, 24, 2, 2),
        _Stage(6, 32, 3, 2),
        _Stage(6, 64, 4, 2),
        _Stage(6, 96, 3, 1),
        _Stage(6, 160, 3, 2),
        _Stage(6, 320, 1, 1),
    )
    features = nn.Sequential(
        conv_bn(3, 32, stride=2, activation=_relu6),
        *_blocks(32, stages, _relu6),
        conv_bn(320, 1280, 1, activation=_relu6),
    )
    return drawn(Classifier(features, 1280), image(3, 224, 224), "logits")


def _mnasnet() -> Network:
    """MnasNet-B1, depth multiplier 1.0: Tan et al., arXiv 1807.11626."""
    stages = (
        _Stage(3, 24, 3, 2),
        _Stage(3, 40, 3, 2, 5),
        _Stage(6, 80, 3, 2, 5),
        _Stage(6, 96, 2, 1),
        _Stage(6, 192, 4, 2, 5),
        _Stage(6, 320, 1, 1),
    )
    features = nn.Sequential(
        conv_bn(3, 32, stride=2),
        conv_bn(32, 32, groups=32),
        conv_bn(32, 16, 1, activation=None),
        *_blocks(16, stages, relu),
        conv_bn(320, 1280, 1),
    )
    return drawn(Classifier(features, 1280), image(3, 224, 224), "logits")


def _efficientnet(width: float, depth: float, size: int) -> Network:
    """EfficientNet: Tan and Le, arXiv 1905.11946, table 1, scaled as in section 3.3."""
    table = (
        _Stage(1, 16, 1, 1),
        _Stage(6, 24, 2, 2),
        _Stage(6, 40, 2, 2, 5),
        _Stage(6, 80, 3, 2),
        _Stage(6, 112, 3, 1, 5),
        _Stage(6, 192, 4, 2, 5),
        _Stage(6, 320, 1, 1),
    )
    stages = tuple(
        _Stage(s.expand, _scaled(s.width, width), math.ceil(s.count * depth), s.stride, s.kernel)
        for s in table
    )
    stem, last = _scaled(32, width), _scaled(1280, width)
    features = nn.Sequential(
        conv_bn(3, stem, stride=2, activation=_silu),
        *_blocks(stem, stages, _silu, squeeze=True),
        conv_bn(stages[-1].width, last, 1, activation=_silu),
    )
    return drawn(Classifier(features, last), image(3, size, size), "logits")


def _scaled(channels: int, factor: float, divisor: int = 8) -> int:
    """The multiple of 8 nearest to `channels * factor`, at most a tenth below it."""
    wanted = channels * factor
    rounded = max(divisor, int(wanted + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * wanted else rounded + divisor


class _ShuffleUnit(nn.Module):
    """Half of the channels pass by; then all are shuffled: arXiv 1807.11164, figure 3."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        half = cout // 2
        self.is_whole = stride > 1  # then no channel passes by
        entering = cin if self.is_whole else half
        self.branch = nn.Sequential(
            conv_bn(entering, half, 1),
            conv_bn(half, half, stride=stride, groups=half, activation=None),
            conv_bn(half, half, 1),
        )
        self.aside = nn.Identity()
        if self.is_whole:
            self.aside = nn.Sequential(
                conv_bn(cin, cin, stride=stride, groups=cin, activation=None),
                conv_bn(cin, half, 1),
            )

    def forward(self, x: Tensor) -> Tensor:
        aside, y = (x, x) if self.is_whole else x.chunk(2, 1)
        joined = torch.cat([self.aside(aside), self.branch(y)], 1)
        batch, channels, height, width = joined.shape
        grouped = joined.view(batch, 2, channels // 2, height, width)
        return grouped.transpose(1, 2).reshape(batch, channels, height, width)


def _shufflenet_v2() -> Network:
    """ShuffleNetV2, width 1.0: Ma et al., arXiv 1807.11164, table 5."""
    layers: list[nn.Module] = [conv_bn(3, 24, stride=2), nn.MaxPool2d(3, 2, 1)]
    cin = 24
    for width, count in ((116, 4), (232, 8), (464, 4)):
        for index in range(count):
            layers.append(_ShuffleUnit(cin, width, 1 if index else 2))
            cin = width
    features = nn.Sequential(*layers, conv_bn(464, 1024, 1))
    return drawn(Classifier(features, 1024), image(3, 224, 224), "logits")


NETWORKS: dict[str, Callable[[], Network]] = {
    "mobilenet_v2": _mobilenet_v2,
    "mnasnet_1_0": _mnasnet,
    "efficientnet_b0": lambda: _efficientnet(1.0, 1.0, 224),
    "efficientnet_b4": lambda: _efficientnet(1.4, 1.8, 380),
    "shufflenet_v2": _shufflenet_v2,
}
