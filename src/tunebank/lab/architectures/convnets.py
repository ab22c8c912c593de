"""Convolutional classifiers: ResNet, VGG, GoogLeNet, AlexNet."""

# mypy: disallow-subclassing-any=False
# (torch is not followed: its `Module` is Any here)
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tunebank.lab.architectures.blocks import Classifier, conv_bn
from tunebank.lab.architectures.network import Network, drawn, image


class _Residual(nn.Module):
    """relu(branch(x) + shortcut(x)): He et al., arXiv 1512.03385."""

    def __init__(self, branch: nn.Module, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or cin != cout:
            self.shortcut = conv_bn(cin, cout, 1, stride=stride, activation=None)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.branch(x) + self.shortcut(x))


def _basic(cin: int, width: int, stride: int) -> nn.Module:
    branch = nn.Sequential(
        conv_bn(cin, width, stride=stride), conv_bn(width, width, activation=None)
    )
    return _Residual(branch, cin, width, stride)


def _bottleneck(cin: int, width: int, stride: int) -> nn.Module:
    """With the stride in the 3x3 convolution (version 1.5)."""
    branch = nn.Sequential(
        conv_bn(cin, width, 1),
        conv_bn(width, width, stride=stride),
        conv_bn(width, 4 * width, 1, activation=None),
    )
    return _Residual(branch, cin, 4 * width, stride)


def _resnet(
    counts: tuple[int, ...],
    block: Callable[[int, int, int], nn.Module],
    expansion: int,
    *,
    batch: int = 1,
) -> Network:
    """ResNet: arXiv 1512.03385, table 1."""
    layers: list[nn.Module] = [conv_bn(3, 64, 7, stride=2), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for stage, count in enumerate(counts):
        width = 64 << stage
        for index in range(count):
            layers.append(block(channels, width, 2 if stage > 0 and index == 0 else 1))
            channels = width * expansion
    module = Classifier(nn.Sequential(*layers), channels)
    return drawn(module, image(3, 224, 224, batch=batch), "logits")


def _vgg16() -> Network:
    """VGG-16, configuration D: Simonyan and Zisserman, arXiv 1409.1556, table 1."""
    layers: list[nn.Module] = []
    channels = 3
    for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        layers.append(nn.MaxPool2d(2))
    head = _dense_head(512 * 7 * 7)
    return drawn(nn.Sequential(*layers, nn.Flatten(), *head), image(3, 224, 224), "logits")


def _dense_head(features: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for cin in (features, 4096):
        layers += [nn.Linear(cin, 4096), nn.ReLU(inplace=True), nn.Dropout()]
    return [*layers, nn.Linear(4096, 1000)]


def _alexnet() -> Network:
    """AlexNet in its one-column form: Krizhevsky, arXiv 1404.5997."""
    features = [
        nn.Conv2d(3, 64, 11, 4, 2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
        nn.AdaptiveAvgPool2d(6),
        nn.Flatten(),
    ]
    module = nn.Sequential(*features, *_dense_head(256 * 6 * 6))
    return drawn(module, image(3, 224, 224), "logits")


class _Inception(nn.Module):
    """Four branches side by side: 1x1, 3x3, 5x5, pooling."""

    def __init__(self, cin: int, widths: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        one, three_in, three, five_in, five, pooled = widths
        self.branches = nn.ModuleList(
            [
                conv_bn(cin, one, 1),
                nn.Sequential(conv_bn(cin, three_in, 1), conv_bn(three_in, three)),
                nn.Sequential(conv_bn(cin, five_in, 1), conv_bn(five_in, five, 5)),
                nn.Sequential(nn.MaxPool2d(3, 1, 1), conv_bn(cin, pooled, 1)),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


_INCEPTIONS: tuple[tuple[int, int, int, int, int, int] | None, ...] = (
    (64, 96, 128, 16, 32, 32),
    (128, 128, 192, 32, 96, 64),
    None,
    (192, 96, 208, 16, 48, 64),
    (160, 112, 224, 24, 64, 64),
    (128, 128, 256, 24, 64, 64),
    (112, 144, 288, 32, 64, 64),
    (256, 160, 320, 32, 128, 128),
    None,
    (256, 160, 320, 32, 128, 128),
    (384, 192, 384, 48, 128, 128),
)
"""Widths of the inception blocks; None is a pooling between."""


def _googlenet() -> Network:
    """GoogLeNet with batch norm: Szegedy et al., arXiv 1409.4842, table 1."""
    layers: list[nn.Module] = [
        conv_bn(3, 64, 7, stride=2),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        conv_bn(64, 64, 1),
        conv_bn(64, 192),
        nn.MaxPool2d(3, 2, ceil_mode=True),
    ]
    channels = 192
    for widths in _INCEPTIONS:
        if widths is None:
            layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
            continue
        layers.append(_Inception(channels, widths))
        channels = widths[0] + widths[2] + widths[4] + widths[5]
    return drawn(Classifier(nn.Sequential(*layers), channels), image(3, 224, 224), "logits")


NETWORKS: dict[str, Callable[[], Network]] = {
    "resnet18": lambda: _resnet((2, 2, 2, 2), _basic, 1),
    "resnet50": lambda: _resnet((3, 4, 6, 3), _bottleneck, 4),
    "resnet18_batch8": lambda: _resnet((2, 2, 2, 2), _basic, 1, batch=8),
    "vgg16": _vgg16,
    "googlenet": _googlenet,
    "alexnet": _alexnet,
}
