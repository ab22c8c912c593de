"""Whether an ONNX file computes what the program computes that it was made from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from tunebank.errors import ModelError
from tunebank.model.torch_program import first_line, quiet

Array = np.ndarray[Any, Any]

_SEED = 0
_EXTENT_UNKNOWN = 4
_INTEGERS_ALLOWED = 0.01  # an index may change where two values are nearly equal
_ROUNDING_FACTOR = 10.0  # rounding happens in each step, and not in weights and inputs alone
_MOST_ROUNDING = 0.1
_TOLERANCES = {"float64": 1e-4, "float32": 1e-3, "float16": 3e-2}
"""By data type, the largest error allowed relative to the largest magnitude of an output."""


def check_numbers(path: Path, program: Any, converted: Path) -> str | None:
    """Runs the program and the ONNX file on one random input, and compares.

    Integers are drawn from 0 and 1, which are legal indices of any table.

    Returns:
        Why nothing could be compared; None if it was, and agreed.

    Raises:
        ModelError: they differ, or ONNX Runtime can't run the file to its end.
    """
    try:
        session = _session(converted)
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        return f"ONNX Runtime can't run it: {first_line(error)}"
    inputs = _random_inputs(program)
    values = _values(program, inputs)
    try:
        expected = _run_program(program, values)
    except Exception as error:  # such as an assertion of the model's own on what it is given
        return f"it doesn't run on random inputs: {first_line(error)}"
    feed = {name: _array(value) for name, value in inputs.items() if _is_tensor(value)}
    wanted = {spec.name for spec in session.get_inputs()}
    try:
        found = session.run(None, {name: array for name, array in feed.items() if name in wanted})
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise ModelError(
            f"{path}: PyTorch's exporter wrote what ONNX Runtime can't run: {first_line(error)}"
        ) from error
    if len(found) != len(expected):
        raise ModelError(f"{path}: PyTorch's exporter lost outputs: {len(found)} are left")
    reason = _first_difference(found, expected, [0.0] * len(found))
    if reason:  # rarely: it costs another run
        disturbed = _run_program(program, [_disturbed(value) for value in values])
        rounding = [_largest(a, b) for a, b in zip(disturbed, expected, strict=True)]
        reason = _first_difference(found, expected, rounding)
    if reason and _draws(program):
        raise ModelError(
            f"{path}: the program draws random numbers ({_draws(program)}), "
            "and a compiled model can't; give them to it as an input"
        )
    if reason:
        raise ModelError(
            f"{path}: PyTorch's exporter changed the numbers: {reason}; "
            "export the model to ONNX by other means"
        )
    return None


def _draws(program: Any) -> str:
    """The first operator that draws random numbers; empty if there is none."""
    drawing = ("aten.rand", "aten.normal", "aten.bernoulli", "aten.multinomial", "aten.poisson")
    names = (str(node.target) for node in program.graph.nodes if node.op == "call_function")
    return next((name for name in names if name.startswith(drawing)), "")


def _session(converted: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(converted), options, providers=["CPUExecutionProvider"])


def _random_inputs(program: Any) -> dict[str, Any]:
    """A legal value for each input by name: tensors drawn, constants as they are."""
    import torch

    generator = torch.Generator().manual_seed(_SEED)
    wanted = set(program.graph_signature.user_inputs)
    found: dict[str, Any] = {}
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in wanted:
            found[node.name] = _random_value(node.meta.get("val"), generator)
    return found


def _random_value(like: Any, generator: Any) -> Any:
    import torch

    if isinstance(like, torch.SymInt):
        return int(_extent(like))
    if not isinstance(like, torch.Tensor):
        return like
    shape = [_extent(extent) for extent in like.shape]
    if like.dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(like.dtype)
    if like.dtype.is_complex:
        return torch.randn(shape, generator=generator, dtype=like.dtype)
    return torch.randint(0, 2, shape, generator=generator).to(like.dtype)


def _extent(extent: Any) -> int:
    """A legal value of a dimension: the one that the program was exported with."""
    if isinstance(extent, int):
        return extent
    hint = extent.node.hint
    return _EXTENT_UNKNOWN if hint is None else int(hint)


def _values(program: Any, inputs: dict[str, Any]) -> list[Any]:
    """All that the program's graph takes: its state and the inputs, in its order."""
    from torch.export.graph_signature import InputKind

    values: list[Any] = []
    for spec in program.graph_signature.input_specs:
        if spec.kind is InputKind.USER_INPUT:
            values.append(inputs.get(spec.arg.name, getattr(spec.arg, "value", None)))
        elif spec.target in program.state_dict:
            values.append(program.state_dict[spec.target])
        else:
            values.append(program.constants[spec.target])
    return values


def _disturbed(value: Any) -> Any:
    """A value as far from the given one as rounding might have brought it."""
    import torch

    if not _is_tensor(value) or not value.dtype.is_floating_point:
        return value
    generator = torch.Generator().manual_seed(_SEED)
    signs = torch.randint(0, 2, value.shape, generator=generator) * 2 - 1
    return value + value * signs * torch.finfo(value.dtype).eps


def _run_program(program: Any, values: list[Any]) -> list[Array]:
    """The program's outputs, by PyTorch's interpreter of graphs: no Python source is made."""
    import torch

    with torch.no_grad(), quiet():
        outputs = torch.fx.Interpreter(program.graph_module).run(*values)
    return [_array(value) for value in outputs if _is_tensor(value)]


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _array(tensor: Any) -> Array:
    import torch

    plain = tensor.detach()
    array: Array = (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()
    return array


def _first_difference(
    found: Sequence[Array], expected: Sequence[Array], rounding: Sequence[float]
) -> str:
    """How the first output that differs does; empty if all agree."""
    for index, (one, other, noise) in enumerate(zip(found, expected, rounding, strict=True)):
        reason = _difference(np.asarray(one), other, noise)
        if reason:
            return f"output_{index} {reason}"
    return ""


def _difference(found: Array, expected: Array, rounding: float) -> str:
    """How two outputs differ; empty if they agree.

    Where values cancel, an output is small and its rounding is not: what rounding of weights
    and inputs does to it is allowed too, but never a tenth of it.
    """
    if found.shape != expected.shape:
        return f"has the shape {found.shape} and not {expected.shape}"
    if expected.dtype.kind not in "fc":
        wrong = float(np.mean(found != expected)) if expected.size else 0.0
        return f"differs in {wrong:.1%} of its integers" if wrong > _INTEGERS_ALLOWED else ""
    if not np.array_equal(np.isfinite(found), np.isfinite(expected)):
        return "is infinite elsewhere"
    error = _largest(found, expected)
    scale = float(np.abs(expected[np.isfinite(expected)]).max(initial=0.0))
    relative = _TOLERANCES.get(str(expected.dtype), _TOLERANCES["float32"])
    noise = min(_ROUNDING_FACTOR * rounding, _MOST_ROUNDING * scale)
    if error <= max(relative * scale, noise, 1e-30):
        return ""
    return f"differs by {error:.3g}, its largest value is {scale:.3g}"


def _largest(one: Array, other: Array) -> float:
    """The largest difference of two outputs where both are finite."""
    finite = np.isfinite(one) & np.isfinite(other)
    wide = np.complex128 if other.dtype.kind == "c" else np.float64
    return float(np.abs(one[finite].astype(wide) - other[finite].astype(wide)).max(initial=0.0))
