"""Networks over sequences: recurrent classifiers, and a Conformer for speech."""

# mypy: disallow-subclassing-any=False
# (torch is not followed: its `Module` is Any here)
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from tunebank.lab.architectures.network import SEED, Network, drawn, tokens

_VOCABULARY = 10_000


class _Recurrent(nn.Module):
    """Embedding, two bidirectional recurrent layers, mean over time, dense layer."""

    def __init__(self, cell: type[nn.LSTM] | type[nn.GRU], classes: int = 10) -> None:
        super().__init__()
        self.embedding = nn.Embedding(_VOCABULARY, 128)
        self.layers = cell(128, 128, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(256, classes)

    def forward(self, ids: Tensor) -> Tensor:
        states, _ = self.layers(self.embedding(ids))
        return self.head(states.mean(1))


class _RelativeAttention(nn.Module):
    """Self-attention with relative positions: Dai et al., arXiv 1901.02860, section 3.3."""

    def __init__(self, width: int, heads: int, length: int) -> None:
        super().__init__()
        self.heads, self.depth = heads, width // heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.position = nn.Linear(width, width, bias=False)
        self.content_bias = nn.Parameter(torch.randn(heads, 1, self.depth) * 0.1)
        self.position_bias = nn.Parameter(torch.randn(heads, 1, self.depth) * 0.1)
        self.out = nn.Linear(width, width)
        self.register_buffer("offsets", _sinusoids(length, width))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        parts = self.qkv(self.norm(x)).view(batch, length, 3, self.heads, self.depth)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        where = self.position(self.offsets).view(1, -1, self.heads, self.depth).transpose(1, 2)
        content = (query + self.content_bias) @ key.transpose(-2, -1)
        position = _shifted((query + self.position_bias) @ where.transpose(-2, -1))
        weights = ((content + position) / self.depth**0.5).softmax(-1)
        return self.out((weights @ value).transpose(1, 2).reshape(batch, length, width))


def _shifted(scores: Tensor) -> Tensor:
    """(N, heads, T, 2T - 1) by offset → (N, heads, T, T) by position."""
    batch, heads, length, offsets = scores.shape
    padded = functional.pad(scores, (1, 0)).view(batch, heads, offsets + 1, length)
    return padded[:, :, 1:].reshape(batch, heads, length, offsets)[..., :length]


def _sinusoids(length: int, width: int) -> Tensor:
    """Sines and cosines of the offsets T - 1 to 1 - T, (2T - 1, width)."""
    offsets = torch.arange(length - 1, -length, -1.0)[:, None]
    rates = 10_000.0 ** (-torch.arange(0, width, 2.0) / width)
    return torch.cat([(offsets * rates).sin(), (offsets * rates).cos()], 1)


class _Convolution(nn.Module):
    """Gated linear unit, depthwise convolution over time: arXiv 2005.08100, figure 2."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.enter = nn.Conv1d(width, 2 * width, 1)
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.batch_norm = nn.BatchNorm1d(width)
        self.leave = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.glu(self.enter(self.norm(x).transpose(1, 2)), dim=1)
        y = functional.silu(self.batch_norm(self.depthwise(y)))
        return self.leave(y).transpose(1, 2)


class _Block(nn.Module):
    """Half feed-forward, attention, convolution, half feed-forward: arXiv 2005.08100."""

    def __init__(self, width: int, heads: int, length: int, kernel: int) -> None:
        super().__init__()
        self.first, self.second = _feed_forward(width), _feed_forward(width)
        self.attention = _RelativeAttention(width, heads, length)
        self.convolution = _Convolution(width, kernel)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + 0.5 * self.first(x)
        x = x + self.attention(x)
        x = x + self.convolution(x)
        return self.norm(x + 0.5 * self.second(x))


def _feed_forward(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width)
    )


class _Conformer(nn.Module):
    """Conformer (S) with fewer blocks: Gulati et al., arXiv 2005.08100, table 1.

    (N, frames, 80) mel features → (N, frames / 4, symbols) log probabilities.
    """

    def __init__(self, frames: int, blocks: int = 4, width: int = 144, symbols: int = 128) -> None:
        super().__init__()
        self.subsample = nn.Sequential(
            nn.Conv2d(1, width, 3, 2), nn.ReLU(), nn.Conv2d(width, width, 3, 2), nn.ReLU()
        )
        length = ((frames - 1) // 2 - 1) // 2
        self.enter = nn.Linear(width * 19, width)
        self.blocks = nn.Sequential(*(_Block(width, 4, length, 31) for _ in range(blocks)))
        self.head = nn.Linear(width, symbols)

    def forward(self, x: Tensor) -> Tensor:
        y = self.subsample(x[:, None])
        batch, channels, length, bands = y.shape
        y = self.enter(y.transpose(1, 2).reshape(batch, length, channels * bands))
        return self.head(self.blocks(y)).log_softmax(-1)


def _conformer() -> Network:
    torch.manual_seed(SEED)
    return drawn(_Conformer(400), {"features": torch.randn(1, 400, 80)}, "log_probabilities")


def _recurrent(cell: type[nn.LSTM] | type[nn.GRU]) -> Network:
    torch.manual_seed(SEED)
    return drawn(_Recurrent(cell), {"ids": tokens(64, _VOCABULARY)}, "logits")


NETWORKS: dict[str, Callable[[], Network]] = {
    "conformer": _conformer,
    "lstm_classifier": lambda: _recurrent(nn.LSTM),
    "gru_classifier": lambda: _recurrent(nn.GRU),
}
