"""Networks that people deploy, with random weights: what coverage is measured on."""

from tunebank.lab.architectures.catalogue import FAMILIES, FORMATS, Entry, catalogue, find_entries
from tunebank.lab.architectures.files import build_file, model_file

__all__ = [
    "FAMILIES",
    "FORMATS",
    "Entry",
    "build_file",
    "catalogue",
    "find_entries",
    "model_file",
]
