"""The names of all networks, and in which forms each is there. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tunebank.errors import UsageError

FORMATS = {"onnx": ".onnx", "torch": ".pt2"}
"""The readers, and the suffix of the files that each reads."""

FAMILIES: dict[str, tuple[str, ...]] = {
    "convnets": ("resnet18", "resnet50", "resnet18_batch8", "vgg16", "googlenet", "alexnet"),
    "mobile": (
        "mobilenet_v2",
        "mnasnet_1_0",
        "efficientnet_b0",
        "efficientnet_b4",
        "shufflenet_v2",
    ),
    "vision": ("vit_b_16", "swin_tiny", "convnext_tiny", "mobilevit_small", "poolformer_s12"),
    "language": (
        "bert_128",
        "bert_256",
        "mobilebert_128",
        "mobilebert_256",
        "distilbert",
        "albert",
        "gpt2",
        "t5_encoder",
        "whisper_encoder",
        "wav2vec2",
    ),
    "sequence": ("conformer", "lstm_classifier", "gru_classifier"),
    "dense_prediction": ("unet", "yolo_head", "super_resolution", "diffusion_unet"),
    "odd_ones": ("conv_zoo", "multi_io"),
}
"""By module of this package, the networks that it defines in `NETWORKS`."""

_OF_OTHER_TYPES = ("resnet18", "distilbert")
_LIGHT = (
    "bvlc_alexnet",
    "densenet121",
    "inception_v1",
    "inception_v2",
    "resnet50",
    "shufflenet",
    "squeezenet",
    "vgg19",
    "zfnet512",
)
"""The networks of the `onnx` package, by the names of their files."""


@dataclass(frozen=True)
class Entry:
    """A network of the catalogue.

    Attributes:
        name: its name.
        family: the module that defines it; `light` for those of the `onnx` package.
        base: the network that it is made from; its own name unless it is a variant.
        dtype: `float32`, `float16`, `bfloat16`, or `int8` for one quantised statically.
        formats: the readers that there is a file for.
    """

    name: str
    family: str
    base: str
    dtype: str = "float32"
    formats: tuple[str, ...] = ("onnx", "torch")


def catalogue() -> tuple[Entry, ...]:
    """All networks."""
    return tuple(_entries())


def find_entries(names: Sequence[str]) -> tuple[Entry, ...]:
    """The networks of these names, all for none.

    Raises:
        UsageError: no network of that name.
    """
    known = {entry.name: entry for entry in catalogue()}
    for name in names:
        if name not in known:
            raise UsageError(f"no network named {name!r}; there are: {', '.join(known)}")
    return tuple(known[name] for name in names) or tuple(known.values())


def _entries() -> Iterator[Entry]:
    for family, names in FAMILIES.items():
        for name in names:
            yield Entry(name, family, name)
    families = {name: family for family, names in FAMILIES.items() for name in names}
    for base in _OF_OTHER_TYPES:
        yield Entry(f"{base}_fp16", families[base], base, "float16")
        yield Entry(f"{base}_bf16", families[base], base, "bfloat16")
        yield Entry(f"{base}_int8", families[base], base, "int8", ("onnx",))
    for name in _LIGHT:
        yield Entry(f"light_{name}", "light", f"light_{name}", formats=("onnx",))
