"""The version, in a file of its own that the build reads without an import."""

__version__ = "0.1.0"
