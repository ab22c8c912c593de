"""The machine that code is made for."""

from tunebank.device.device import (
    Device,
    available_cores,
    cpu_features,
    cpu_flags,
    detect_device,
    missing_features,
    multiplies_bytes,
    multiply_adds_of,
    recorded_device,
    vector_lanes_of,
)
from tunebank.device.peak import peak_gflop_per_s

__all__ = [
    "Device",
    "available_cores",
    "cpu_features",
    "cpu_flags",
    "detect_device",
    "missing_features",
    "multiplies_bytes",
    "multiply_adds_of",
    "peak_gflop_per_s",
    "recorded_device",
    "vector_lanes_of",
]
