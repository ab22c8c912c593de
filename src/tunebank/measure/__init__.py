"""Measuring candidates in warm, isolated worker processes."""

from tunebank.measure.measurer import LocalMeasurer, Measurement, Measurer, Status

__all__ = ["LocalMeasurer", "Measurement", "Measurer", "Status"]
