"""Whether an ONNX file computes what the program computes that it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from tunebank.errors import ModelError
from tunebank.model.torch_program import first_line, quiet

Array = np.ndarray[Any, Any]

_SEED = 0
_EXTENT_UNKNOWN = 4
_TOLERANCES = {"float64": 1e-4, "float32": 1e-3, "float16": 3e-2}
"""By data type, the largest error allowed relative to the largest magnitude of an output."""


def check_numbers(path: Path, program: Any, converted: Path) -> str | None:
    """Runs the program and the ONNX file on one random input, and compares.

    Integers are drawn from 0 and 1, which are legal indices of any table.

    Returns:
        Why nothing could be compared; None if it was, and agreed.

    Raises:
        ModelError: they differ.
    """
    try:
        session = _session(converted)
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        return f"ONNX Runtime can't run it: {first_line(error)}"
    inputs = _random_inputs(program)
    expected = _run_program(program, inputs)
    feed = {name: _array(value) for name, value in inputs.items() if _is_tensor(value)}
    wanted = {spec.name for spec in session.get_inputs()}
    found = session.run(None, {name: array for name, array in feed.items() if name in wanted})
    if len(found) != len(expected):
        raise ModelError(f"{path}: PyTorch's exporter lost outputs: {len(found)} are left")
    for index, (one, other) in enumerate(zip(found, expected, strict=True)):
        reason = _difference(np.asarray(one), other)
        if reason:
            raise ModelError(
                f"{path}: PyTorch's exporter changed the numbers: output_{index} {reason}; "
                "export the model to ONNX by other means"
            )
    return None


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


def _run_program(program: Any, inputs: dict[str, Any]) -> list[Array]:
    """The program's outputs, by PyTorch's interpreter of graphs: no Python source is made."""
    import torch
    from torch.export.graph_signature import InputKind

    values: list[Any] = []
    for spec in program.graph_signature.input_specs:
        if spec.kind is InputKind.USER_INPUT:
            values.append(inputs.get(spec.arg.name, getattr(spec.arg, "value", None)))
        elif spec.target in program.state_dict:
            values.append(program.state_dict[spec.target])
        else:
            values.append(program.constants[spec.target])
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


def _difference(found: Array, expected: Array) -> str:
    """How two outputs differ; empty if they agree."""
    if found.shape != expected.shape:
        return f"has the shape {found.shape} and not {expected.shape}"
    if not expected.size:
        return ""
    if expected.dtype.kind not in "fc":
        wrong = float(np.mean(found != expected))
        return f"differs in {wrong:.1%} of its integers" if wrong > 0.01 else ""
    if not np.array_equal(np.isfinite(found), np.isfinite(expected)):
        return "is infinite elsewhere"
    finite = np.isfinite(expected)
    wide = expected[finite].astype(np.complex128)
    error = float(np.abs(found[finite].astype(np.complex128) - wide).max(initial=0.0))
    scale = float(np.abs(wide).max(initial=0.0))
    tolerance = _TOLERANCES.get(str(expected.dtype), _TOLERANCES["float32"])
    if error <= tolerance * max(scale, 1e-30):
        return ""
    return f"differs by {error:.3g}, its largest value is {scale:.3g}"
