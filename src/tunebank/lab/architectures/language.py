"""Transformers over text and speech: BERT and its kin, GPT-2, T5's and Whisper's encoders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import Tensor

from tunebank.lab.architectures.hugging import wrapped
from tunebank.lab.architectures.network import Network, tokens

_EAGER: dict[str, Any] = {"attn_implementation": "eager"}
"""Attention as matrix products and a softmax, as most exported files have it."""


def _text(length: int, vocabulary: int, *, segments: bool = False) -> dict[str, Tensor]:
    """Ids, a mask whose end is padding, and segments of two sentences, each (1, length)."""
    place = torch.arange(length)[None]
    inputs = {
        "input_ids": tokens(length, vocabulary),
        "attention_mask": (place < length - length // 8).long(),
    }
    if segments:
        inputs["token_type_ids"] = (place >= length // 2).long()
    return inputs


def _bert(length: int) -> Network:
    """BERT base: Devlin et al., arXiv 1810.04805."""
    config = transformers.BertConfig(**_EAGER)
    return wrapped(
        lambda: transformers.BertModel(config),
        _text(length, config.vocab_size, segments=True),
        "last_hidden_state",
        "pooler_output",
    )


def _mobilebert(length: int) -> Network:
    """MobileBERT: Sun et al., arXiv 2004.02984.

    Its norms don't normalise; biases and scales near the identity keep its activations bounded.
    """
    config = transformers.MobileBertConfig(**_EAGER)
    return wrapped(
        lambda: transformers.MobileBertModel(config),
        _text(length, config.vocab_size, segments=True),
        "last_hidden_state",
        "pooler_output",
    )


def _distilbert() -> Network:
    """DistilBERT, a classifier: Sanh et al., arXiv 1910.01108."""
    config = transformers.DistilBertConfig(**_EAGER)
    return wrapped(
        lambda: transformers.DistilBertForSequenceClassification(config),
        _text(128, config.vocab_size),
        "logits",
    )


def _albert() -> Network:
    """ALBERT base: Lan et al., arXiv 1909.11942, table 1."""
    config = transformers.AlbertConfig(
        hidden_size=768,
        num_attention_heads=12,
        intermediate_size=3072,
        **_EAGER,
    )
    return wrapped(
        lambda: transformers.AlbertModel(config),
        _text(128, config.vocab_size, segments=True),
        "last_hidden_state",
        "pooler_output",
    )


def _gpt2() -> Network:
    """GPT-2 small with its language head, one pass without a cache."""
    config = transformers.GPT2Config(**_EAGER, use_cache=False)
    return wrapped(
        lambda: transformers.GPT2LMHeadModel(config), _text(64, config.vocab_size), "logits"
    )


def _t5_encoder() -> Network:
    """T5 small's encoder: Raffel et al., arXiv 1910.10683."""
    config = transformers.T5Config(**_EAGER, use_cache=False)
    return wrapped(
        lambda: transformers.T5EncoderModel(config),
        _text(128, config.vocab_size),
        "last_hidden_state",
    )


def _whisper_encoder() -> Network:
    """Whisper tiny's encoder over 30 s of speech: Radford et al., arXiv 2212.04356."""
    config = transformers.WhisperConfig(**_EAGER)
    features = torch.randn(1, config.num_mel_bins, 3000, generator=torch.Generator().manual_seed(0))
    return wrapped(
        lambda: transformers.WhisperModel(config).encoder,
        {"input_features": features},
        "last_hidden_state",
    )


def _wav2vec2() -> Network:
    """wav2vec 2.0 base over a second of speech, 4 of its 12 layers: arXiv 2006.11477."""
    config = transformers.Wav2Vec2Config(num_hidden_layers=4, **_EAGER)
    wave = torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0))
    return wrapped(
        lambda: transformers.Wav2Vec2Model(config), {"input_values": wave}, "last_hidden_state"
    )


NETWORKS: dict[str, Callable[[], Network]] = {
    "bert_128": lambda: _bert(128),
    "bert_256": lambda: _bert(256),
    "mobilebert_128": lambda: _mobilebert(128),
    "mobilebert_256": lambda: _mobilebert(256),
    "distilbert": _distilbert,
    "albert": _albert,
    "gpt2": _gpt2,
    "t5_encoder": _t5_encoder,
    "whisper_encoder": _whisper_encoder,
    "wav2vec2": _wav2vec2,
}
