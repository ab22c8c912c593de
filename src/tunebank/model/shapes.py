"""Which shapes a model is compiled for: every dimension of every input known, one or several times.

--input-shape x:1,3,224,224                              one set of shapes
--input-shape x:1,3,224,224 --input-shape x:4,3,224,224  two sets; the first of `x` goes with
                                                         the first of every other input
--dim batch=1,4                                          two sets: a dimension by its name,
                                                         wherever it stands
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import onnx

from tunebank.errors import ModelError

InputShapes = Mapping[str, Sequence[int] | Sequence[Sequence[int]]]
"""By input name a shape, or several."""
DimValues = Mapping[str, Sequence[int]]
"""By name of a symbolic dimension its values."""
ShapeSet = dict[str, tuple[int, ...]]
"""By input name a shape with every extent known."""

_MAX_EXTENT = 2**31 - 1
_MAX_SETS = 64


def shape_sets(
    path: Path, inputs: Sequence[onnx.ValueInfoProto], shapes: InputShapes, dims: DimValues
) -> list[ShapeSet]:
    """The sets of shapes to compile for; one if nothing is dynamic.

    Args:
        path: the model file, for messages.
        inputs: the model's inputs.
        shapes: shapes of inputs, by name.
        dims: values of symbolic dimensions, by name.

    Raises:
        ModelError: an unknown name, a shape that does not fit, or a dimension without a value.
    """
    names = [value.name for value in inputs]
    for name in shapes:
        if name not in names:
            raise ModelError(f"{path}: no input {name!r}; inputs: {', '.join(names)}")
    _check_dims(path, inputs, dims)
    found = [
        {value.name: _fixed(path, value, given.get(value.name), values) for value in inputs}
        for given, values in itertools.product(_zipped(path, shapes), _products(dims))
    ]
    distinct = list({tuple(sorted(one.items())): one for one in found}.values())
    if len(distinct) > _MAX_SETS:
        raise ModelError(
            f"{path}: {len(distinct)} sets of shapes; at most {_MAX_SETS} are compiled"
        )
    return distinct


def _zipped(path: Path, shapes: InputShapes) -> list[dict[str, Sequence[int]]]:
    """The given shapes as sets: the n-th of each input together, a single one with all."""
    several = {name: _several(shape) for name, shape in shapes.items()}
    count = max((len(one) for one in several.values()), default=1)
    for name, values in several.items():
        if len(values) not in (1, count):
            raise ModelError(
                f"{path}: input {name!r} is given {len(values)} shapes, another input {count}; "
                "give each one shape, or equally many"
            )
    return [{n: values[i % len(values)] for n, values in several.items()} for i in range(count)]


def _several(shape: Sequence[int] | Sequence[Sequence[int]]) -> list[Sequence[int]]:
    if len(shape) and not isinstance(shape[0], int):
        return [list(one) for one in cast("Sequence[Sequence[int]]", shape)]
    return [cast("Sequence[int]", shape)]


def _products(dims: DimValues) -> list[dict[str, int]]:
    return [dict(zip(dims, values, strict=True)) for values in itertools.product(*dims.values())]


def _check_dims(path: Path, inputs: Sequence[onnx.ValueInfoProto], dims: DimValues) -> None:
    known = {dim.dim_param for value in inputs for dim in _dims(value) if dim.dim_param}
    for name, values in dims.items():
        if name not in known:
            there = f"there are: {', '.join(sorted(known))}" if known else "it has none"
            raise ModelError(f"{path}: no symbolic dimension {name!r}; {there}")
        if not values or not all(1 <= value <= _MAX_EXTENT for value in values):
            raise ModelError(
                f"{path}: --dim {name}={','.join(map(str, values))}: "
                f"a dimension is at least 1 and at most {_MAX_EXTENT}"
            )


def _fixed(
    path: Path,
    value: onnx.ValueInfoProto,
    given: Sequence[int] | None,
    dims: Mapping[str, int],
) -> tuple[int, ...]:
    """The shape of an input, from what the file says, the given shape and the dimensions."""
    known = value.type.HasField("tensor_type") and value.type.tensor_type.HasField("shape")
    if not known and given is None and value.type.HasField("tensor_type"):
        raise ModelError(
            f"{path}: input {value.name!r} has no shape; "
            f"give one with --input-shape {value.name}:1,3,224,224"
        )
    if given is not None:
        _check_given(path, value, given, known)
        return tuple(int(extent) for extent in given)
    extents = [dim.dim_value or dims.get(dim.dim_param, 0) for dim in _dims(value)]
    if any(extent <= 0 for extent in extents):
        raise ModelError(
            f"{path}: input {value.name!r} has a dynamic shape {_shape_text(value)}; "
            f"fix it with --input-shape {value.name}:{_shape_hint(value)}"
        )
    return tuple(int(extent) for extent in extents)


def _check_given(path: Path, value: onnx.ValueInfoProto, given: Sequence[int], known: bool) -> None:
    """Whether a given shape agrees with what the file says."""
    dims = _dims(value)
    text = ",".join(map(str, given))
    if known and len(given) != len(dims):
        raise ModelError(
            f"{path}: input {value.name!r} has {len(dims)} dimensions, "
            f"--input-shape gives {len(given)}"
        )
    if not all(1 <= extent <= _MAX_EXTENT for extent in given):
        raise ModelError(
            f"{path}: --input-shape {value.name}:{text}: "
            f"a dimension is at least 1 and at most {_MAX_EXTENT}"
        )
    pairs = zip(dims, given, strict=False)
    if any(dim.dim_value > 0 and dim.dim_value != extent for dim, extent in pairs):
        raise ModelError(
            f"{path}: input {value.name!r} is fixed to {_shape_text(value)}, "
            f"--input-shape gives {text}"
        )


def _dims(value: onnx.ValueInfoProto) -> list[onnx.TensorShapeProto.Dimension]:
    return list(value.type.tensor_type.shape.dim)


def _shape_text(value: onnx.ValueInfoProto) -> str:
    return "(" + ", ".join(dim.dim_param or str(dim.dim_value or "?") for dim in _dims(value)) + ")"


def _shape_hint(value: onnx.ValueInfoProto) -> str:
    return ",".join(str(max(dim.dim_value, 1)) for dim in _dims(value))
