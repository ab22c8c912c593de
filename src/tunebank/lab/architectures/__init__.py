"""Networks that people deploy, with random weights: what coverage is measured on."""

from tunebank.lab.architectures.catalogue import FAMILIES, FORMATS, Entry, catalogue, find_entries
from tunebank.lab.architectures.files import build_file, file_path, model_file

__all__ = [
    "FAMILIES",
    "FORMATS",
    "Entry",
    "build_file",
    "catalogue",
    "file_path",
    "find_entries",
    "model_file",
]
