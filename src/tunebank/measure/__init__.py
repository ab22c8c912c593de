"""Measuring candidates in warm, isolated worker processes."""

from tunebank.measure.local import LocalMeasurer
from tunebank.measure.measurement import Measurement, Measurer, Status

__all__ = ["LocalMeasurer", "Measurement", "Measurer", "Status"]
