"""PyTorch programs as ONNX files, from where there is one way for all models.

    names     inputs are called as `torch.export` calls them: an argument's name, and for nested
              ones the keys and indices behind it (`batch["ids"][0]` is `batch_ids_0`).
              Outputs are `output_0`, `output_1`, ... in order, nested ones flattened.
    shapes    dynamic dimensions become named ones.
    state     a program that changes its buffers or inputs is refused: an ONNX file has no state.

Call these in a process of its own: PyTorch is large, and its exporter may crash.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import onnx

from tunebank.errors import ModelError
from tunebank.model.torch_check import check_numbers
from tunebank.model.torch_program import first_line, load_program, quiet, require_torch
from tunebank.model.torch_repairs import repair

OPSET = 18
"""The oldest that PyTorch's exporter writes; the newest whose operators TVM imports well."""

_LARGEST_ONE_FILE_BYTES = 1_500_000_000  # protobuf holds 2 GiB


def export_onnx(path: Path, folder: Path) -> Path:
    """Writes the program of a `.pt2` file as `<folder>/<stem>.onnx`.

    Weights of large programs lie beside it, in `<stem>.onnx.data`. The numbers of both are
    compared on random inputs; where ONNX Runtime can't run the file, as with bfloat16, they are
    not, and a `UserWarning` says so.

    Args:
        path: the `.pt2` file. Nothing in it is unpickled or run as code.
        folder: an existing folder.

    Raises:
        ModelError: not such a file, one that changes its state, or an operator that can't be
            exported; or the exporter changed the numbers.
        MissingExtraError: PyTorch or onnxscript is not installed.
    """
    program = load_program(path)
    _refuse_mutations(path, program)
    target = folder / f"{path.stem}.onnx"
    with quiet():
        repaired = repair(program)
        try:
            converted = _converted(repaired)
        except Exception as error:  # the exporter wraps whatever happened in its own classes
            raise ModelError(
                f"{path}: PyTorch's ONNX exporter fails: {first_line(error)}"
            ) from error
        _save(converted, target)
    unchecked = check_numbers(path, program, target)
    if unchecked:
        unchecked = unchecked.replace(f"{folder}/", "")
        warnings.warn(f"the exported program's numbers are unchecked: {unchecked}", stacklevel=2)
    return target


def save_program(program: Any, path: Path) -> None:
    """Writes a live `torch.export.ExportedProgram` as a `.pt2` file.

    Raises:
        ModelError: it is no such program, or PyTorch can't save it.
        MissingExtraError: PyTorch or onnxscript is not installed.
    """
    require_torch()
    import torch

    if not isinstance(program, torch.export.ExportedProgram):
        raise ModelError(
            f"{type(program).__name__} is no exported program; "
            "make one with `torch.export.export(module, inputs)`"
        )
    try:
        with quiet():
            torch.export.save(program, path)
    except Exception as error:  # PyTorch raises whatever it likes
        raise ModelError(f"{path}: PyTorch can't save the program: {first_line(error)}") from error


def _refuse_mutations(path: Path, program: Any) -> None:
    """A program must be a function of its inputs.

    Raises:
        ModelError: it changes a buffer, a parameter or an input.
    """
    from torch.export.graph_signature import OutputKind

    signature = program.graph_signature
    changed = [
        str(spec.target)
        for spec in signature.output_specs
        if spec.kind not in (OutputKind.USER_OUTPUT, OutputKind.LOSS_OUTPUT)
    ]
    state = {spec.arg.name: spec.target or spec.arg.name for spec in signature.input_specs}
    for node in program.graph.nodes:
        if node.op == "call_function" and _writes_to_first(node.target):
            first = node.args[0]
            if getattr(first, "op", None) == "placeholder":
                changed.append(str(state.get(first.name, first.name)))
        if node.op == "call_function" and _trains(node):
            changed.append(f"the statistics of {node.name}")
    if changed:
        names = ", ".join(dict.fromkeys(changed[:3]))
        raise ModelError(
            f"{path}: the program changes {names} when it runs, and a compiled model has no "
            "state; call `module.eval()` before `torch.export.export`"
        )


def _writes_to_first(target: Any) -> bool:
    schema = getattr(target, "_schema", None)
    if schema is None or not schema.arguments:
        return False
    alias = schema.arguments[0].alias_info
    return alias is not None and bool(alias.is_write)


def _trains(node: Any) -> bool:
    """Whether a batch norm takes its statistics from the batch, or a dropout drops."""
    name = str(node.target)
    if name.startswith("aten.batch_norm.") and len(node.args) > 5:
        return bool(node.args[5])
    if name.startswith(("aten.dropout.", "aten.native_dropout.")) and len(node.args) > 2:
        return bool(node.args[2]) and float(node.args[1]) > 0
    return False


def _converted(program: Any) -> Any:
    import torch

    outputs = len(program.graph_signature.user_outputs)
    taken = [str(name) for name in program.graph_signature.user_inputs]
    names = [f"output_{index}" for index in range(outputs)]
    with torch.no_grad():
        return torch.onnx.export(
            program,
            (),
            dynamo=True,
            opset_version=OPSET,
            input_names=taken,
            output_names=[f"{name}_" if name in taken else name for name in names],
            verbose=False,
        )


def _save(converted: Any, target: Path) -> None:
    """Writes the file; function bodies, if the exporter left any, are put in their places."""
    values = [weight.const_value for weight in converted.model.graph.initializers.values()]
    size = sum(value.nbytes for value in values if value is not None)
    converted.save(str(target), external_data=size > _LARGEST_ONE_FILE_BYTES)
    proto = onnx.load(str(target), load_external_data=False)
    if proto.functions:
        onnx.save(onnx.inliner.inline_local_functions(proto), str(target))
