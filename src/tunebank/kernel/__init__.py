"""Kernels, their identity and their class."""

from tunebank.kernel.blocks import BlockSite, anchor_position, block_sites
from tunebank.kernel.canonical import anchor_key, canonical_text, class_key, kernel_key
from tunebank.kernel.kernel import Kernel

__all__ = [
    "BlockSite",
    "Kernel",
    "anchor_key",
    "anchor_position",
    "block_sites",
    "canonical_text",
    "class_key",
    "kernel_key",
]
