"""The models of the experiments, and which of them are one architecture under several names.

The thirteen are those of Gibson and Cano (arXiv 2201.05587): batch 1, float32, random weights.
Others join them by the name of a catalogue's network, by a file, or by a function,
`package.module:function`, that returns a `Network`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunebank.bank import Bank
from tunebank.device import Device
from tunebank.errors import UsageError
from tunebank.kernel import Kernel
from tunebank.lab.architectures import catalogue, file_path, find_entries, model_file
from tunebank.model import Model, Reader, load_model

ZOO = (
    "resnet18", "resnet50", "alexnet", "vgg16", "mobilenet_v2", "efficientnet_b0",
    "efficientnet_b4", "googlenet", "mnasnet_1_0", "bert_128", "bert_256", "mobilebert_128",
    "mobilebert_256",
)  # fmt: skip

_SAME = (
    {"bert_128", "bert_256", "bert128"},
    {"mobilebert_128", "mobilebert_256"},
    {"resnet18", "resnet18_batch8"},
    {"resnet50", "light_resnet50"},
    {"googlenet", "light_inception_v1"},
    {"alexnet", "light_bvlc_alexnet"},
)
"""Networks that are one architecture: other lengths, batches or files of the same."""
_BY_LENGTH = ("bert_", "mobilebert_")
"""Networks whose names end with the length of the text."""
_SAME_KERNELS = 0.5
"""Models with at least this part of their kernels in common count as one architecture."""
_SUFFIXES = (".onnx", ".pt2")


@dataclass(frozen=True)
class Subject:
    """A model of an experiment.

    Attributes:
        name: its name, which is also its source in the bank.
        path: its file.
        is_catalogued: whether the catalogue can make it as a PyTorch module too.
    """

    name: str
    path: Path
    is_catalogued: bool = False

    def load(self, device: Device, reader: Reader) -> Model:
        """The model, ready to be compiled."""
        return load_model(self.path, device, reader=reader)


def find_subjects(
    names: Sequence[str], cache: Path, *, report: Callable[[str], None] = lambda text: None
) -> tuple[Subject, ...]:
    """The models of these names, the thirteen for none; those not in the cache are built.

    Args:
        names: of the catalogue; or paths of files, or `package.module:function`.
        cache: folder of the files.
        report: told which network is being built.

    Raises:
        UsageError: no such network, or no such file.
        MissingExtraError: a network has to be built, and PyTorch is not installed.
    """
    return tuple(_subject(name, cache, report) for name in names or ZOO)


def same_architecture(name: str) -> frozenset[str]:
    """The names of the networks with the architecture of this one, its own among them."""
    found = {name}
    for group in _SAME:
        if name in group:
            found |= group
    bases = {entry.name: entry.base for entry in catalogue()}
    base = bases.get(name, name)
    return frozenset(found | {other for other, own in bases.items() if own == base})


def hidden_sources(name: str, kernels: Collection[Kernel], bank: Bank) -> frozenset[str]:
    """The sources that must not serve a model in an experiment: all of its own architecture.

    They are told by name; and, since a bank may hold the same network under a name that nobody
    knows, by kernels: a source that has many of the model's very kernels is hidden too.
    """
    hidden = set(same_architecture(name))
    own = {kernel.key for kernel in kernels if kernel.anchor is not None}
    theirs: dict[str, set[str]] = {}
    for key in own:
        for record in bank.find(kernel_key=key, status=None):
            theirs.setdefault(record.source, set()).add(key)
    hidden.update(s for s, keys in theirs.items() if len(keys) >= _SAME_KERNELS * len(own))
    return frozenset(hidden)


def other_lengths(name: str, bank: Bank) -> list[str]:
    """The sources in a bank that are the same network for another length of text."""
    bases = [base for base in _BY_LENGTH if name.startswith(base)]
    sources = [s for s in bank.sources() if s != name]
    return [s for s in sources for base in bases if s.removeprefix(base).isdecimal()]


def _subject(name: str, cache: Path, report: Callable[[str], None]) -> Subject:
    if name.endswith(_SUFFIXES):
        path = Path(name)
        if not path.is_file():
            raise UsageError(f"{path}: no such file")
        return Subject(path.stem, path)
    (entry,) = find_entries([name])
    if not file_path(entry, "onnx", cache).exists():
        report(f"building {entry.name}")
    return Subject(entry.name, model_file(entry, "onnx", cache), is_catalogued=True)
