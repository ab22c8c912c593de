"""A plan made into machine code: a library of kernels, and the program that calls them.

    kernels.so     the tensor programs, built in parts side by side
    program.vm     the virtual machine's instructions, and the weights, packed

Two files, since a linker takes longer to copy the weights than everything else takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import tvm
from tvm import ir, relax, tirx
from tvm.relax.vm_build import VMExecutable
from tvm.support import cc

from tunebank.build.place import placed_module
from tunebank.device import Device
from tunebank.errors import TargetError, UsageError
from tunebank.model import Model
from tunebank.search import Plan

_PARTS_PER_THREAD = 4
"""LLVM takes a part at a time: several per thread even out their sizes."""


def check_compiler() -> None:
    """Looks for the C compiler that links the library.

    Raises:
        UsageError: there is none.
    """
    if cc.get_cc() is None:
        raise UsageError("no C compiler to link with; install gcc or clang, or set CC to one")


def build(model: Model, plan: Plan, device: Device, *, library: Path, program: Path) -> None:
    """Compiles the model under the plan into two files.

    Args:
        model: the model.
        plan: the schedules.
        device: what to compile for.
        library: file for the kernels.
        program: file for the instructions and the weights.

    Raises:
        UsageError: there is no C compiler, or it fails.
        TargetError: LLVM can't make code for the target.
    """
    check_compiler()
    target = device.tvm_target()
    builder, kernels = lowered(placed_module(model, plan), target)
    objects = _objects(kernels, target, device.threads, library.parent)
    _link(library, objects)
    executable: VMExecutable = builder.get()
    executable.mod.write_to_file(str(program), "")


def lowered(module: ir.IRModule, target: Any) -> tuple[relax.ExecBuilder, ir.IRModule]:
    """The graph as instructions, and the tensor programs that they call."""
    with target:
        module = _pipeline()(module)
    builder = relax.ExecBuilder()
    rest = relax.vm_build._vmcodegen(builder, module)  # the public `build` links in one piece
    kernels = {v: f for v, f in rest.functions_items() if isinstance(f, tirx.PrimFunc)}
    return builder, ir.IRModule(kernels, attrs=rest.attrs)


def _objects(kernels: ir.IRModule, target: Any, threads: int, folder: Path) -> list[Path]:
    """Object files of the tensor programs, built in parts side by side."""
    functions = sorted(kernels.functions_items(), key=lambda item: str(item[0].name_hint))
    parts = [
        functions[i :: threads * _PARTS_PER_THREAD] for i in range(threads * _PARTS_PER_THREAD)
    ]

    def build_part(numbered: tuple[int, Sequence[Any]]) -> Path:
        index, part = numbered
        path = folder / f"part{index}.o"
        built = tirx.build(ir.IRModule(dict(part), attrs=kernels.attrs), target=target)
        built.write_to_file(str(path))
        return path

    # TVM lets go of Python's lock while it works.
    with ThreadPoolExecutor(threads) as pool:
        try:
            return list(pool.map(build_part, enumerate(part for part in parts if part)))
        except tvm.error.TVMError as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise TargetError(f"can't make code for this target: {lines[-1][:300]}") from error


def _link(library: Path, objects: Sequence[Path]) -> None:
    try:
        cc.create_shared(str(library), [str(path) for path in objects])
    except (OSError, RuntimeError) as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        reason = lines[1] if len(lines) > 1 else lines[0]
        raise UsageError(f"linking with {cc.get_cc()} failed: {reason[:300]}") from error
    for path in objects:
        path.unlink()


def _pipeline() -> tvm.transform.Pass:
    """From calls of tensor programs to the virtual machine's instructions."""
    transform = relax.transform
    return tvm.transform.Sequential(
        [
            transform.RewriteDataflowReshape(),
            transform.ToNonDataflow(),
            transform.RemovePurityChecking(),
            transform.CallTIRRewrite(),
            transform.StaticPlanBlockMemory(),
            transform.LowerAllocTensor(),
            transform.KillAfterLastUse(),
            transform.LowerRuntimeBuiltin(),
            transform.ComputePrimValue(),
            transform.VMShapeLower(),
            transform.AttachGlobalSymbol(),
        ]
    )
