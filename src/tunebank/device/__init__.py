"""The machine that code is made for."""

from tunebank.device.device import (
    Device,
    available_cores,
    cpu_features,
    cpu_flags,
    detect_device,
    missing_features,
    multiplies_bytes,
    recorded_device,
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
    "peak_gflop_per_s",
    "recorded_device",
]
