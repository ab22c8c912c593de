"""Repairs of TVM's ONNX importer."""

from __future__ import annotations

import functools
from typing import Any


@functools.cache
def repair_importer() -> None:
    """Puts all repairs in place."""
    import_clips_whole()
    import_pads_whole()
    drop_empty_attributes()
    suppress_above_threshold()


@functools.cache
def import_clips_whole() -> None:
    """Imports Clip with constant bounds as one `relax.clip`.

    TVM writes a maximum and a minimum with a guard against NaN bounds, and inlines them as
    tensor programs, through which no layout passes. Goes when the importer emits `clip`.
    """
    import math

    from tvm import ir, relax
    from tvm.relax.frontend.onnx import onnx_frontend

    original = onnx_frontend.Clip._impl_v13.__func__

    def constant(bound: Any, default: float) -> float | None:
        if bound is None:
            return default
        if not isinstance(bound, ir.GenericConst):
            return None
        value = float(bound.value.numpy())
        return default if math.isnan(value) else value

    def convert(cls: Any, bb: Any, inputs: Any, attr: Any, params: Any) -> Any:
        low, high = constant(inputs[1], -math.inf), constant(inputs[2], math.inf)
        if low is None or high is None or low > high:
            return original(cls, bb, inputs, attr, params)
        return relax.op.clip(inputs[0], low, high)

    onnx_frontend.Clip._impl_v13 = classmethod(convert)


@functools.cache
def import_pads_whole() -> None:
    """Imports Pad with a constant as one `relax.nn.pad`.

    TVM inlines it as a tensor program, through which no layout passes. Goes when it emits `pad`.
    """
    from tvm import relax, topi
    from tvm.relax.frontend.onnx import onnx_frontend

    class Builder:
        """The importer's builder, but for padding."""

        def __init__(self, builder: Any) -> None:
            self._builder = builder

        def __getattr__(self, name: str) -> Any:
            return getattr(self._builder, name)

        def emit_te(self, func: Any, *operands: Any) -> Any:
            if func is not topi.nn.pad:
                return self._builder.emit_te(func, *operands)
            data, before, after, value = operands
            widths = [int(width) for pair in zip(before, after, strict=True) for width in pair]
            return relax.op.nn.pad(data, widths, pad_value=float(value))

    def replace(name: str) -> None:
        original = getattr(onnx_frontend.Pad, name).__func__

        def convert(cls: Any, bb: Any, inputs: Any, attr: Any, params: Any) -> Any:
            return original(cls, Builder(bb), inputs, attr, params)

        setattr(onnx_frontend.Pad, name, classmethod(convert))

    for name in [name for name in vars(onnx_frontend.Pad) if name.startswith("_impl_v")]:
        replace(name)


@functools.cache
def drop_empty_attributes() -> None:
    """Imports a node whose attribute is an empty list as one without the attribute.

    TVM takes it for an attribute of an unknown kind. The axes of a reduction to a scalar are
    written so. Goes when it reads the attribute's type.
    """
    from onnx import AttributeProto
    from tvm.relax.frontend.onnx import onnx_frontend

    fields = {
        AttributeProto.INTS: "ints",
        AttributeProto.FLOATS: "floats",
        AttributeProto.STRINGS: "strings",
    }
    original = onnx_frontend.ONNXGraphImporter._parse_attr

    def is_empty(attribute: Any) -> bool:
        field = fields.get(attribute.type)
        return field is not None and not getattr(attribute, field)

    def parse(self: Any, attributes: Any) -> Any:
        return original(self, [one for one in attributes if not is_empty(one)])

    onnx_frontend.ONNXGraphImporter._parse_attr = parse


@functools.cache
def suppress_above_threshold() -> None:
    """Imports NonMaxSuppression so that a box goes if its overlap is above the threshold.

    TVM drops boxes whose overlap is equal to it, too. Here it gets the next larger float for a
    threshold. Goes when TVM compares with `>`.
    """
    import numpy as np
    from tvm import ir, relax
    from tvm.relax.frontend.onnx import onnx_frontend

    original = onnx_frontend.NonMaxSuppression._impl_v10.__func__

    def convert(cls: Any, bb: Any, inputs: Any, attr: Any, params: Any) -> Any:
        threshold = inputs[3]
        if isinstance(threshold, ir.GenericConst):
            above = np.nextafter(threshold.value.numpy(), np.float32(np.inf), dtype=np.float32)
            inputs = onnx_frontend.onnx_input(inputs)
            list.__setitem__(inputs, 3, relax.const(above))
        return original(cls, bb, inputs, attr, params)

    onnx_frontend.NonMaxSuppression._impl_v10 = classmethod(convert)


@functools.cache
def imported_operators() -> frozenset[str]:
    """Names of the ONNX operators that TVM's importer knows, control flow left aside."""
    from tvm.relax.frontend.onnx import onnx_frontend

    return frozenset(onnx_frontend._get_convert_map())
