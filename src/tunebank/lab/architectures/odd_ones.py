"""Networks that hold what others rarely do: odd convolutions, odd inputs and outputs."""

# mypy: disallow-subclassing-any=False
# (torch is not followed: its `Module` is Any here)
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from tunebank.lab.architectures.network import SEED, Network, drawn, image, tokens


class _ConvZoo(nn.Module):
    """Convolutions of all kinds in a row, (N, 16, 56, 56) → three outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                nn.Conv2d(16, 16, 3, padding=1, groups=16),  # depthwise
                nn.Conv2d(16, 48, 3, padding=1, groups=16),  # depthwise, three filters each
                nn.Conv2d(48, 32, 3, padding=1, groups=4),  # grouped
                nn.Conv2d(32, 32, 3, padding=2, dilation=2),  # dilated
                nn.Conv2d(32, 32, 5, padding=8, dilation=4, groups=32),  # dilated, depthwise
                nn.Conv2d(32, 32, (1, 7), padding=(0, 3)),  # a row
                nn.Conv2d(32, 32, (7, 1), padding=(3, 0)),  # a column
                nn.Conv2d(32, 40, (3, 5), stride=(2, 1), padding=(1, 2)),  # unequal strides
                nn.Conv2d(40, 24, 2, stride=2),  # even window
                nn.ConvTranspose2d(24, 24, 3, 2, 1, output_padding=1),
                nn.ConvTranspose2d(24, 24, 4, 2, 1, groups=4),
                nn.ConvTranspose2d(24, 16, 3, padding=2, dilation=2),
            ]
        )
        self.row = nn.Conv1d(16, 24, 5, stride=2, padding=2)
        self.volume = nn.Conv3d(4, 8, 3, padding=1, stride=(1, 2, 2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        for layer in self.layers:
            x = functional.leaky_relu(layer(x), 0.1)
        padded = functional.pad(x, (0, 1, 1, 0))  # one side only
        pooled = functional.avg_pool2d(padded, 3, 2, padding=1, count_include_pad=False)
        row = functional.hardswish(self.row(x.mean(2)))
        volume = functional.elu(self.volume(x.view(x.shape[0], 4, 4, x.shape[2], x.shape[3])))
        return pooled, row, volume


class _MultiIo(nn.Module):
    """A recommender after Naumov et al., arXiv 1906.00091, with odd inputs and outputs.

    Takes token ids (1, 16) int64, categories (1, 4) int32, features (1, 13), a scalar
    temperature and a mask (1, 16) bool. Gives scores (1, 32), the best three and their indices,
    a scalar, and the number of tokens that counted, int64.
    """

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(1000, 32)
        self.tables = nn.ModuleList(nn.Embedding(100, 32) for _ in range(4))
        self.bottom = nn.Sequential(nn.Linear(13, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU())
        self.top = nn.Sequential(nn.Linear(32 + 15, 64), nn.ReLU(), nn.Linear(64, 32))

    def forward(
        self, ids: Tensor, categories: Tensor, features: Tensor, temperature: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        kept = mask.to(features.dtype)
        count = kept.sum(1, keepdim=True).clamp(min=1.0)
        words = (self.words(ids) * kept[..., None]).sum(1) / count
        looked_up = [table(categories[:, i]) for i, table in enumerate(self.tables)]
        dense = self.bottom(features)
        vectors = torch.stack([dense, words, *looked_up], 1)
        products = (vectors @ vectors.transpose(1, 2)).flatten(1)
        pairs = products[:, [6 * i + j for i in range(6) for j in range(i)]]
        scores = self.top(torch.cat([dense, pairs], 1)) / (temperature.abs() + 1.0)
        best, index = scores.topk(3, dim=1)
        spread = scores.amax() - scores.amin()
        return scores, best, index, spread, mask.to(torch.int64).sum()


def _multi_io() -> Network:
    torch.manual_seed(SEED)
    inputs = {
        "ids": tokens(16, 1000),
        "categories": torch.tensor([[3, 14, 15, 92]], dtype=torch.int32),
        "features": torch.randn(1, 13),
        "temperature": torch.tensor(0.5),
        "mask": torch.arange(16)[None] < 11,
    }
    return drawn(_MultiIo(), inputs, "scores", "best", "index", "spread", "counted")


NETWORKS: dict[str, Callable[[], Network]] = {
    "conv_zoo": lambda: drawn(_ConvZoo(), image(16, 56, 56), "pooled", "row", "volume"),
    "multi_io": _multi_io,
}
