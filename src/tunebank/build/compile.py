"""A plan made into machine code: a library of kernels, and the program that calls them.

    kernels.so     the tensor programs, built in parts side by side
    program.vm     the virtual machine's instructions, and the weights, packed

Two files, since a linker takes longer to copy the weights than everything else takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tvm
from tvm import ir, relax, tirx
from tvm.relax.vm_build import VMExecutable
from tvm.runtime.vm import VirtualMachine
from tvm.support import cc

from tunebank.build.fallback import fallbacks
from tunebank.build.objects import build_objects
from tunebank.build.place import kernel_key_of, placed_module
from tunebank.device import Device
from tunebank.errors import TargetError, UsageError
from tunebank.measure import Measurement
from tunebank.measure.pool import WorkerPool
from tunebank.model import Model
from tunebank.search import Plan


def check_compiler() -> None:
    """Looks for the C compiler that links the library.

    Raises:
        UsageError: there is none.
    """
    if cc.get_cc() is None:
        raise UsageError("no C compiler to link with; install gcc or clang, or set CC to one")


@dataclass(frozen=True)
class Built:
    """What building gave.

    Attributes:
        plan: the plan that was built: kernels that don't build under their schedule have another.
        executable: the instructions and the weights, not yet linked with the library.
        library: the kernels.
    """

    plan: Plan
    executable: VMExecutable
    library: Path

    def machine(self) -> VirtualMachine:
        """A virtual machine that runs it, in this process."""
        self.executable.mod.import_module(tvm.runtime.load_module(str(self.library)))
        return VirtualMachine(self.executable, tvm.cpu())


def build(
    model: Model,
    plan: Plan,
    device: Device,
    workers: WorkerPool,
    *,
    library: Path,
    report: Callable[[str], None] = lambda text: None,
) -> Built:
    """Compiles the model under the plan.

    Args:
        model: the model.
        plan: the schedules.
        device: what to compile for.
        workers: processes that make machine code.
        library: file for the kernels.
        report: called with a line for each kernel that does not build.

    Raises:
        UsageError: there is no C compiler, or it fails.
        TargetError: LLVM can't make code for the target, or for a kernel under no schedule.
    """
    check_compiler()
    target = device.tvm_target()
    while True:
        builder, kernels = lowered(placed_module(model, plan), target)
        objects = build_objects(kernels, device.target, workers)
        if not objects.failures:
            break
        for name, failure in objects.failures.items():
            plan = _without(plan, name, failure, device)
            reason = (failure.error or failure.status)[:200]
            report(f"kernel {name} does not build ({reason}): it gets another schedule")
    _link(library, objects.files)
    return Built(plan, builder.get(), library)


def _without(plan: Plan, name: str, failure: Measurement, device: Device) -> Plan:
    """The plan with another schedule for the kernel whose program failed."""
    key = kernel_key_of(name)
    others = fallbacks(plan.choices[key], failure, device) if key in plan.choices else iter(())
    other = next(others, None)
    if other is None:
        raise TargetError(f"can't make code for kernel {name}: {(failure.error or '')[:300]}")
    return replace(plan, choices={**plan.choices, key: other})


def lowered(module: ir.IRModule, target: Any) -> tuple[relax.ExecBuilder, ir.IRModule]:
    """The graph as instructions, and the tensor programs that they call."""
    with target:
        module = _pipeline()(module)
    builder = relax.ExecBuilder()
    rest = relax.vm_build._vmcodegen(builder, module)  # the public `build` links in one piece
    kernels = {v: f for v, f in rest.functions_items() if isinstance(f, tirx.PrimFunc)}
    return builder, ir.IRModule(kernels, attrs=rest.attrs)


def _link(library: Path, objects: Sequence[Path]) -> None:
    try:
        cc.create_shared(str(library), [str(path) for path in objects])
    except (OSError, RuntimeError) as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        reason = lines[1] if len(lines) > 1 else lines[0]
        raise UsageError(f"linking with {cc.get_cc()} failed: {reason[:300]}") from error


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
