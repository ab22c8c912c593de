"""A model: its fused graph and its kernels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tvm import ir, relax, tirx

from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.model.graph import fused_module
from tunebank.model.onnx_file import InputShapes, read_onnx
from tunebank.model.spec import TensorSpec


@dataclass(frozen=True)
class Model:
    """A network ready for scheduling.

    Attributes:
        name: the file's stem.
        path: the file that it was read from.
        inputs: inputs in order.
        output_names: outputs in order.
        kernels: the distinct kernels, heaviest first.
        module: the fused graph; `main` calls tensor programs.
        kernel_of: by name of a tensor program in the module, the key of its kernel.
        warnings: what could not be done for this model.
    """

    name: str
    path: Path
    inputs: tuple[TensorSpec, ...]
    output_names: tuple[str, ...]
    kernels: tuple[Kernel, ...]
    module: ir.IRModule = field(repr=False, compare=False)
    kernel_of: Mapping[str, str] = field(repr=False, compare=False)
    warnings: tuple[str, ...] = ()

    @property
    def flops(self) -> float:
        """Floating-point operations of one run."""
        return sum(kernel.flops * kernel.weight for kernel in self.kernels)


def load_model(path: Path, device: Device, *, input_shapes: InputShapes | None = None) -> Model:
    """Reads a model file and splits it into kernels.

    Raises:
        ModelError: the file can't be read or imported; the message says why.
    """
    source = read_onnx(path, input_shapes=input_shapes)
    module, warnings = fused_module(source, device.tvm_target())
    kernels, kernel_of = _extract_kernels(module)
    return Model(
        name=source.name,
        path=path,
        inputs=source.inputs,
        output_names=source.output_names,
        kernels=kernels,
        module=module,
        kernel_of=kernel_of,
        warnings=tuple(warnings),
    )


def _extract_kernels(module: ir.IRModule) -> tuple[tuple[Kernel, ...], dict[str, str]]:
    """The distinct kernels with their weights, and which program is which kernel."""
    calls = _call_counts(module)
    kernels: dict[str, Kernel] = {}
    kernel_of: dict[str, str] = {}
    weights: Counter[str] = Counter()
    for var, func in module.functions_items():
        name = str(var.name_hint)
        if not isinstance(func, tirx.PrimFunc) or not calls[name]:
            continue
        kernel = Kernel.from_prim_func(func, name=_display_name(name))
        kernels.setdefault(kernel.key, kernel)
        kernel_of[name] = kernel.key
        weights[kernel.key] += calls[name]
    weighted = [kernel.with_weight(weights[key]) for key, kernel in kernels.items()]
    weighted.sort(key=lambda kernel: (-kernel.flops * kernel.weight, kernel.name, kernel.key))
    return tuple(weighted), kernel_of


def _call_counts(module: ir.IRModule) -> Counter[str]:
    """How often `main` calls each tensor program."""
    counts: Counter[str] = Counter()

    def visit(expr: Any) -> None:
        if isinstance(expr, ir.Call) and getattr(expr.op, "name", "") == "relax.call_tir":
            counts[str(expr.args[0].name_hint)] += 1

    relax.analysis.post_order_visit(module["main"], visit)
    return counts


def _display_name(name: str) -> str:
    """`fused_conv2d10_add7_relu41` → `conv2d_add_relu`: TVM numbers its functions."""
    parts = [part.rstrip("0123456789") or part for part in name.split("_")]
    return "_".join(part for part in parts if part != "fused")
