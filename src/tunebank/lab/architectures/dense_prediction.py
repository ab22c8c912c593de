"""Networks that give images or grids: U-Nets, a YOLO-like detector, super-resolution."""

# mypy: disallow-subclassing-any=False
# (torch is not followed: its `Module` is Any here)
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from tunebank.lab.architectures.blocks import conv_bn
from tunebank.lab.architectures.network import Network, drawn, image


class _UNet(nn.Module):
    """U-Net with padded convolutions and batch norm: Ronneberger et al., arXiv 1505.04597."""

    def __init__(self, base: int, depth: int, classes: int) -> None:
        super().__init__()
        widths = [base << level for level in range(depth + 1)]
        self.down = nn.ModuleList(
            _double_conv(cin, cout) for cin, cout in zip([3, *widths], widths, strict=False)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(2 * width, width, 2, 2) for width in reversed(widths[:-1])
        )
        self.merge = nn.ModuleList(
            _double_conv(2 * width, width) for width in reversed(widths[:-1])
        )
        self.head = nn.Conv2d(base, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for index, block in enumerate(self.down):
            x = block(functional.max_pool2d(x, 2) if index else x)
            skips.append(x)
        for up, merge, skip in zip(self.up, self.merge, skips[-2::-1], strict=True):
            x = merge(torch.cat([skip, up(x)], 1))
        return self.head(x)


def _double_conv(cin: int, cout: int) -> nn.Sequential:
    return nn.Sequential(conv_bn(cin, cout), conv_bn(cout, cout))


def _silu() -> nn.Module:
    return nn.SiLU(inplace=True)


def _block(cin: int, cout: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return conv_bn(cin, cout, kernel, stride=stride, activation=_silu)


class _CrossStage(nn.Module):
    """Half of the channels go through residual blocks: Wang et al., arXiv 1911.11929."""

    def __init__(self, cin: int, cout: int, count: int) -> None:
        super().__init__()
        half = cout // 2
        self.enter, self.aside = _block(cin, half, 1), _block(cin, half, 1)
        self.inner = nn.ModuleList(
            nn.Sequential(_block(half, half, 1), _block(half, half)) for _ in range(count)
        )
        self.leave = _block(cout, cout, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.enter(x)
        for block in self.inner:
            y = y + block(y)
        return self.leave(torch.cat([y, self.aside(x)], 1))


class _PyramidPool(nn.Module):
    """The same pooling once, twice, three times, side by side: He et al., arXiv 1406.4729."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter = _block(channels, channels // 2, 1)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.leave = _block(channels * 2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        pools = [self.enter(x)]
        for _ in range(3):
            pools.append(self.pool(pools[-1]))
        return self.leave(torch.cat(pools, 1))


class _Detector(nn.Module):
    """Anchor-based detector on three scales: Redmon and Farhadi, arXiv 1804.02767.

    Gives the raw grids, each (N, 3, H, W, 5 + classes), and all decoded boxes,
    (N, anchors, 5 + classes).
    """

    _ANCHORS = (
        ((10.0, 13.0), (16.0, 30.0), (33.0, 23.0)),
        ((30.0, 61.0), (62.0, 45.0), (59.0, 119.0)),
        ((116.0, 90.0), (156.0, 198.0), (373.0, 326.0)),
    )
    _STRIDES = (8, 16, 32)

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.values = 5 + classes
        self.stem = nn.Sequential(_block(3, 16, 3, 2), _block(16, 32, 3, 2))
        self.stage3 = nn.Sequential(_CrossStage(32, 32, 1), _block(32, 64, 3, 2))
        self.stage4 = nn.Sequential(_CrossStage(64, 64, 2), _block(64, 128, 3, 2))
        self.stage5 = nn.Sequential(
            _CrossStage(128, 128, 1), _block(128, 256, 3, 2), _PyramidPool(256)
        )
        self.up5, self.merge4 = _block(256, 128, 1), _CrossStage(256, 128, 1)
        self.up4, self.merge3 = _block(128, 64, 1), _CrossStage(128, 64, 1)
        self.heads = nn.ModuleList(nn.Conv2d(c, 3 * self.values, 1) for c in (64, 128, 256))
        for level, anchors in enumerate(self._ANCHORS):
            sizes = torch.tensor(anchors).reshape(1, 3, 1, 1, 2)
            self.register_buffer(f"anchors{level}", sizes)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        c3 = self.stage3(self.stem(x))
        c4 = self.stage4(c3)
        c5 = self.stage5(c4)
        p5 = self.up5(c5)
        deep = torch.cat([functional.interpolate(p5, scale_factor=2.0, mode="nearest"), c4], 1)
        p4 = self.merge4(deep)
        q4 = self.up4(p4)
        shallow = torch.cat([functional.interpolate(q4, scale_factor=2.0, mode="nearest"), c3], 1)
        features = (self.merge3(shallow), p4, c5)
        grids = [self._grid(head, f) for head, f in zip(self.heads, features, strict=True)]
        boxes = [self._boxes(level, grid) for level, grid in enumerate(grids)]
        return (*grids, torch.cat(boxes, 1))

    def _grid(self, head: nn.Module, features: Tensor) -> Tensor:
        raw = head(features)
        batch, _, height, width = raw.shape
        return raw.view(batch, 3, self.values, height, width).permute(0, 1, 3, 4, 2).contiguous()

    def _boxes(self, level: int, grid: Tensor) -> Tensor:
        """Centre and size in pixels, then the scores."""
        batch, _, height, width, values = grid.shape
        rows, columns = torch.meshgrid(
            torch.arange(height, device=grid.device),
            torch.arange(width, device=grid.device),
            indexing="ij",
        )
        cells = torch.stack((columns, rows), 2).reshape(1, 1, height, width, 2).to(grid.dtype)
        y = grid.sigmoid()
        centre = (y[..., 0:2] * 2 - 0.5 + cells) * self._STRIDES[level]
        size = (y[..., 2:4] * 2) ** 2 * getattr(self, f"anchors{level}")
        return torch.cat((centre, size, y[..., 4:]), -1).view(batch, -1, values)


class _SuperResolution(nn.Module):
    """Sub-pixel convolution: Shi et al., arXiv 1609.05158; clamped to the range of pixels."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 64, 5, padding=2),
            nn.Tanh(),
            nn.Conv2d(64, 32, 3, padding=1),
            nn.Tanh(),
            nn.Conv2d(32, scale * scale, 3, padding=1),
            nn.PixelShuffle(scale),
        )

    def forward(self, x: Tensor) -> Tensor:
        smooth = functional.interpolate(x, scale_factor=3.0, mode="bilinear", align_corners=False)
        return torch.clamp(self.layers(x) + smooth, -8.0, 8.0)


class _Residual(nn.Module):
    """Group norm, SiLU and convolution, twice, told the time: arXiv 2006.11239, appendix B."""

    def __init__(self, cin: int, cout: int, time: int) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.GroupNorm(32, cin), nn.SiLU(), nn.Conv2d(cin, cout, 3, 1, 1))
        self.time = nn.Linear(time, cout)
        self.leave = nn.Sequential(
            nn.GroupNorm(32, cout), nn.SiLU(), nn.Conv2d(cout, cout, 3, 1, 1)
        )
        self.aside = nn.Conv2d(cin, cout, 1) if cin != cout else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        y = self.enter(x) + self.time(functional.silu(time))[:, :, None, None]
        return self.aside(x) + self.leave(y)


class _PixelAttention(nn.Module):
    """Attention of one head between the pixels of an image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(32, channels)
        self.enter, self.leave = (
            nn.Conv2d(channels, 3 * channels, 1),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        parts = self.enter(self.norm(x)).view(batch, 3, channels, height * width)
        query, key, value = parts.unbind(1)
        weights = (query.transpose(1, 2) @ key / channels**0.5).softmax(-1)
        return x + self.leave((value @ weights.transpose(1, 2)).view(x.shape))


class _DiffusionUNet(nn.Module):
    """Three resolutions, attention at the second: Ho et al., arXiv 2006.11239.

    A noisy image (N, 4, H, W) and an embedded time (N, 64) → the noise.
    """

    def __init__(self, base: int = 64, time: int = 256) -> None:
        super().__init__()
        wide, widest = 2 * base, 4 * base
        self.time = nn.Linear(64, time)
        self.enter = nn.Conv2d(4, base, 3, 1, 1)
        self.first, self.second = _Residual(base, base, time), _Residual(wide, wide, time)
        self.shrink = nn.Conv2d(base, wide, 3, 2, 1)
        self.shrink_again = nn.Conv2d(wide, widest, 3, 2, 1)
        self.attention = _PixelAttention(wide)
        self.middle = _Residual(widest, widest, time)
        self.merge_again = _Residual(widest + wide, wide, time)
        self.merge = _Residual(wide + base, base, time)
        self.leave = nn.Sequential(nn.GroupNorm(32, base), nn.SiLU(), nn.Conv2d(base, 4, 3, 1, 1))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        time = self.time(time)
        large = self.first(self.enter(x), time)
        half = self.attention(self.second(self.shrink(large), time))
        small = self.middle(self.shrink_again(half), time)
        half = self.merge_again(torch.cat([_doubled(small), half], 1), time)
        return self.leave(self.merge(torch.cat([_doubled(half), large], 1), time))


def _doubled(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0)


def _diffusion() -> Network:
    inputs = {**image(4, 32, 32), "time": torch.linspace(-1.0, 1.0, 64)[None]}
    return drawn(_DiffusionUNet(), inputs, "noise")


NETWORKS: dict[str, Callable[[], Network]] = {
    "unet": lambda: drawn(_UNet(32, 4, 2), image(3, 256, 256), "mask"),
    "yolo_head": lambda: drawn(
        _Detector(80), image(3, 320, 320), "grid8", "grid16", "grid32", "boxes"
    ),
    "super_resolution": lambda: drawn(_SuperResolution(3), image(1, 128, 128), "pixels"),
    "diffusion_unet": _diffusion,
}
