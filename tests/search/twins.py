"""Models for two sets of input shapes: the kernels of both take the same weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from programs import matmul

# isort: split
from tvm import ir, relax, tirx

from tunebank.kernel import Kernel
from tunebank.model import Model, ModelFunction, main_functions


def dense(rows: int, columns: int, depth: int) -> tirx.PrimFunc:
    """(rows, depth) times a weight of (depth, columns) whose layout is free, and a bias."""
    func = matmul(m=rows, n=columns, k=depth, epilogue=["bias"])
    return func.with_attr("layout_free_buffers", [1, 2])


def twins(*, rows: Sequence[int] = (1, 8), columns: int = 64, layers: int = 2) -> Model:
    """Equal square dense layers in a row, a function for each number of rows."""
    rng = np.random.default_rng(1)
    weights = [
        relax.const((rng.standard_normal((columns, columns)) / columns**0.5).astype("float32"))
        for _ in range(layers)
    ]
    builder = relax.BlockBuilder()
    for index, count in enumerate(rows):
        _add_function(builder, index, count, columns, weights)
    return _model_of(builder.get(), len(rows), layers)


def _add_function(
    builder: relax.BlockBuilder, index: int, rows: int, columns: int, weights: Sequence[Any]
) -> None:
    x = relax.Var("x", relax.TensorType((rows, columns), "float32"))
    bias = relax.const(np.full(columns, 0.5, "float32"))  # of its own, as in a model that was read
    with builder.function(f"main_{index}" if index else "main", [x]):
        program = builder.add_func(dense(rows, columns, columns), f"dense_{index}")
        with builder.dataflow():
            value: Any = x
            for weight in weights:
                type_ = relax.TensorType((rows, columns), "float32")
                value = builder.emit(relax.call_tir(program, [value, weight, bias], type_))
            output = builder.emit_output(value)
        builder.emit_func_output(output)


def _model_of(module: ir.IRModule, functions: int, weight: int) -> Model:
    kernels, kernel_of = [], {}
    for var, func in module.functions_items():
        if isinstance(func, tirx.PrimFunc):
            kernel = Kernel.from_prim_func(func, name=str(var.name_hint), weight=weight)
            kernels.append(kernel)
            kernel_of[str(var.name_hint)] = kernel.key
    names = [str(var.name_hint) for var in main_functions(module)]
    assert len(names) == functions
    return Model(
        name="twins",
        path=Path("twins.onnx"),
        reference=Path("twins.onnx"),
        functions=tuple(ModelFunction(name, (), ()) for name in names),
        kernels=tuple(sorted(kernels, key=lambda kernel: -kernel.flops)),
        module=module,
        kernel_of=kernel_of,
    )
