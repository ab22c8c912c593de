"""The machine that code is made for."""

from tunebank.device.device import (
    Device,
    available_cores,
    cpu_features,
    cpu_flags,
    detect_device,
    missing_features,
    vector_lanes_of,
)

__all__ = [
    "Device",
    "available_cores",
    "cpu_features",
    "cpu_flags",
    "detect_device",
    "missing_features",
    "vector_lanes_of",
]
