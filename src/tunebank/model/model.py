"""A model: its fused graph and its kernels."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tvm import ir, relax, tirx
from tvm.relax.expr_functor import PyExprMutator, mutator

from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.model.calls import called_name, is_kernel_call, kernel_calls
from tunebank.model.parcel import Unpacker
from tunebank.model.process import Answer, Reader
from tunebank.model.request import Request, Seconds
from tunebank.model.shapes import DimValues, InputShapes
from tunebank.model.spec import TensorSpec


@dataclass(frozen=True)
class ModelFunction:
    """A model for one set of input shapes.

    Attributes:
        name: of the function in the graph.
        inputs: inputs in order.
        output_names: outputs in order.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    output_names: tuple[str, ...]


@dataclass(frozen=True)
class FrontHalf:
    """How a model was read.

    Attributes:
        seconds: what it took, by part.
        peak_bytes: most memory that the reading process had.
        strategy: the way that worked; see `strategy.STRATEGIES`.
        convolutions: by layout, how many convolutions there are.
    """

    seconds: Seconds = field(default_factory=Seconds)
    peak_bytes: int = 0
    strategy: str = ""
    convolutions: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    """A network ready for scheduling.

    Attributes:
        name: the file's stem.
        path: the file that it was read from.
        reference: the same model as an ONNX file, for ONNX Runtime; `path` itself if it is one.
        functions: the model for each set of input shapes; they share weights and kernels.
        kernels: the distinct kernels of all functions, heaviest first.
        module: the fused graph; each function calls tensor programs.
        kernel_of: by name of a tensor program in the module, the key of its kernel.
        front_half: how it was read.
        warnings: what could not be done for this model.
    """

    name: str
    path: Path
    reference: Path
    functions: tuple[ModelFunction, ...]
    kernels: tuple[Kernel, ...]
    module: ir.IRModule = field(repr=False, compare=False)
    kernel_of: Mapping[str, str] = field(repr=False, compare=False)
    front_half: FrontHalf = field(default_factory=FrontHalf, compare=False)
    warnings: tuple[str, ...] = ()
    _folder: Any = field(default=None, repr=False, compare=False)
    """Of files that the model needs; goes with it."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs of the first function."""
        return self.functions[0].inputs

    @property
    def output_names(self) -> tuple[str, ...]:
        """Outputs in order."""
        return self.functions[0].output_names

    @property
    def flops(self) -> float:
        """Floating-point operations of one run of each function."""
        return sum(kernel.flops * kernel.weight for kernel in self.kernels)


def load_model(
    path: Path,
    device: Device,
    *,
    input_shapes: InputShapes | None = None,
    dims: DimValues | None = None,
    reader: Reader | None = None,
    report: Callable[[str], None] = lambda text: None,
) -> Model:
    """Reads a model file and splits it into kernels.

    Args:
        path: an ONNX file, or a PyTorch program (`.pt2`).
        device: what to compile for.
        input_shapes: by input name a shape, or several: a function is made for each.
        dims: by name of a symbolic dimension its values: likewise.
        reader: the process to read in; None starts one for this model.
        report: called with a line when something takes longer, or goes another way.

    Raises:
        ModelError: the file can't be read or imported; the message says why.
        MissingExtraError: a PyTorch program, and PyTorch is not installed.
    """
    folder = tempfile.TemporaryDirectory(prefix="tunebank-model-")  # goes with the model
    request = Request(
        path=str(path),
        target=device.target,
        shapes={name: list(shape) for name, shape in (input_shapes or {}).items()},
        dims={name: list(values) for name, values in (dims or {}).items()},
    )
    if reader is not None:
        answer = reader.read(request, Path(folder.name), report=report)
    else:
        with Reader() as own:
            answer = own.read(request, Path(folder.name), report=report)
    return _model_of(answer, path, folder)


def _model_of(answer: Answer, path: Path, folder: Any) -> Model:
    data = answer.data
    unpacker = Unpacker(Path(folder.name))
    modules = [unpacker.unpack(f"model{index}") for index in range(len(data["functions"]))]
    module = modules[0] if len(modules) == 1 else _merged(modules)
    kernels, kernel_of = extract_kernels(module)
    return Model(
        name=path.stem,
        path=path,
        reference=Path(data["reference"]),
        functions=tuple(_function(index, one) for index, one in enumerate(data["functions"])),
        kernels=kernels,
        module=module,
        kernel_of=kernel_of,
        front_half=FrontHalf(
            Seconds(**data["seconds"]), data["peak_bytes"], answer.strategy, data["convolutions"]
        ),
        warnings=(*answer.warnings, *data["warnings"]),
        _folder=folder,
    )


def _function(index: int, data: Mapping[str, Any]) -> ModelFunction:
    inputs = tuple(TensorSpec(**{**one, "shape": tuple(one["shape"])}) for one in data["inputs"])
    return ModelFunction(function_name(index), inputs, tuple(data["outputs"]))


def function_name(index: int) -> str:
    """Name of the function for a set of shapes."""
    return f"main_{index}" if index else "main"


def main_functions(module: ir.IRModule) -> list[ir.GlobalVar]:
    """The functions of a fused graph that call tensor programs."""
    functions = module.functions_items()
    found = [var for var, func in functions if isinstance(func, relax.Function)]
    return sorted(found, key=lambda var: str(var.name_hint))


@mutator
class _Merger(PyExprMutator):  # type: ignore[misc]
    """Puts functions into one module under new names."""

    def __init__(self, suffix: str, into: relax.BlockBuilder, source: ir.IRModule) -> None:
        super().__init__(source)
        self._suffix, self._into, self._source = suffix, into, source
        self._vars: dict[str, ir.GlobalVar] = {}

    def visit_call_(self, call: ir.Call) -> Any:
        call = self.visit_expr_post_order(call)
        if not is_kernel_call(call):
            return call
        name = called_name(call)
        if name not in self._vars:
            func = self._source[call.args[0]].without_attr("global_symbol")
            self._vars[name] = self._into.add_func(func, f"{name}{self._suffix}")
        operands = [self._vars[name], *call.args[1:]]
        return ir.Call(call.op, operands, call.attrs, call.ty_args, call.span)


def _merged(modules: Sequence[ir.IRModule]) -> ir.IRModule:
    """The functions `main` of several modules as `main`, `main_1`, ... of one."""
    builder = relax.BlockBuilder()
    for index, module in enumerate(modules):
        name = function_name(index)
        merger = _Merger(f"_{index}", builder, module)
        func = merger.visit_expr(module["main"]).with_attr("global_symbol", name)
        builder.add_func(func, name)
    return builder.get()


def extract_kernels(module: ir.IRModule) -> tuple[tuple[Kernel, ...], dict[str, str]]:
    """The distinct kernels with their weights, and which program is which kernel."""
    functions = [module[var] for var in main_functions(module)]
    calls = Counter(called_name(call) for func in functions for call in kernel_calls(func))
    kernels: dict[str, Kernel] = {}
    kernel_of: dict[str, str] = {}
    weights: Counter[str] = Counter()
    for var, func in module.functions_items():
        name = str(var.name_hint)
        if not isinstance(func, tirx.PrimFunc) or not calls[name]:
            continue
        kernel = Kernel.from_prim_func(func, name=display_name(name))
        kernels.setdefault(kernel.key, kernel)
        kernel_of[name] = kernel.key
        weights[kernel.key] += calls[name]
    weighted = [kernel.with_weight(weights[key]) for key, kernel in kernels.items()]
    weighted.sort(key=lambda kernel: (-kernel.flops * kernel.weight, kernel.name, kernel.key))
    return tuple(weighted), kernel_of


def display_name(name: str) -> str:
    """`fused_conv2d10_add7_relu41` → `conv2d_add_relu`: TVM numbers its functions."""
    parts = [part.rstrip("0123456789") or part for part in name.split("_")]
    return "_".join(part for part in parts if part and part != "fused")
