"""An ONNX file quantised statically: QuantizeLinear and DequantizeLinear around its layers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
_BATCHES = 4


def quantise(source: Path, inputs: Mapping[str, Array], target: Path) -> None:
    """Writes an int8 model in QDQ form, calibrated on random inputs.

    Args:
        source: the float32 file.
        inputs: example inputs; random ones take their shapes, types and ranges.
        target: the file to write.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """The random inputs, one feed at a time."""

        def __init__(self) -> None:
            self._feeds = _feeds(inputs)

        def get_next(self) -> dict[str, Array] | None:
            return next(self._feeds, None)

    with tempfile.TemporaryDirectory(prefix="tunebank-") as folder:
        shaped = Path(folder) / "shaped.onnx"
        quant_pre_process(str(source), str(shaped), skip_symbolic_shape=True)
        quantize_static(
            str(shaped),
            str(target),
            Reader(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
        )


def _feeds(inputs: Mapping[str, Array]) -> Iterator[dict[str, Array]]:
    generator = np.random.default_rng(0)
    yield dict(inputs)
    for _ in range(_BATCHES - 1):
        yield {name: _like(array, generator) for name, array in inputs.items()}


def _like(array: Array, generator: np.random.Generator) -> Array:
    if np.issubdtype(array.dtype, np.floating):
        return np.asarray(generator.standard_normal(array.shape), array.dtype)
    # Shuffled, integers stay legal: indices within their table, masks with zeros and ones.
    return np.asarray(generator.permuted(array, axis=-1))
