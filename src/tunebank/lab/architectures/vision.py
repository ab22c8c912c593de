"""Vision transformers and convolutional kin: ViT, Swin, ConvNeXt, MobileViT, PoolFormer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import transformers
from torch import Tensor

from tunebank.lab.architectures.hugging import wrapped
from tunebank.lab.architectures.network import Network, image

_SETTINGS: dict[str, Any] = {"num_labels": 1000, "attn_implementation": "eager"}


def _pixels(size: int) -> dict[str, Tensor]:
    return {"pixel_values": image(3, size, size)["x"]}


def _vit() -> Network:
    """ViT-B/16: Dosovitskiy et al., arXiv 2010.11929, table 1."""
    config = transformers.ViTConfig(**_SETTINGS)
    return wrapped(lambda: transformers.ViTForImageClassification(config), _pixels(224), "logits")


def _swin() -> Network:
    """Swin-T: Liu et al., arXiv 2103.14030, section 3.3."""
    config = transformers.SwinConfig(**_SETTINGS)
    return wrapped(lambda: transformers.SwinForImageClassification(config), _pixels(224), "logits")


def _convnext() -> Network:
    """ConvNeXt-T: Liu et al., arXiv 2201.03545, section 2.

    A trained network's layer scales are near 1; the initial 1e-6 would hide the branches.
    """
    config = transformers.ConvNextConfig(layer_scale_init_value=1.0, **_SETTINGS)
    return wrapped(
        lambda: transformers.ConvNextForImageClassification(config), _pixels(224), "logits"
    )


def _mobilevit() -> Network:
    """MobileViT-S: Mehta and Rastegari, arXiv 2110.02178, table 4."""
    config = transformers.MobileViTConfig(**_SETTINGS)
    return wrapped(
        lambda: transformers.MobileViTForImageClassification(config), _pixels(256), "logits"
    )


def _poolformer() -> Network:
    """PoolFormer-S12: Yu et al., arXiv 2111.11418, table 1. Layer scales as in ConvNeXt."""
    config = transformers.PoolFormerConfig(layer_scale_init_value=1.0, num_labels=1000)
    return wrapped(
        lambda: transformers.PoolFormerForImageClassification(config), _pixels(224), "logits"
    )


NETWORKS: dict[str, Callable[[], Network]] = {
    "vit_b_16": _vit,
    "swin_tiny": _swin,
    "convnext_tiny": _convnext,
    "mobilevit_small": _mobilevit,
    "poolformer_s12": _poolformer,
}
