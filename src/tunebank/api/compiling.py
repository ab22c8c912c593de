"""A model file to an artifact."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tunebank.api.common import (
    PathLike,
    Report,
    can_run_here,
    learn_from,
    load,
    model_file,
    nothing_measured,
    running_measurer,
    silent,
)
from tunebank.bank import open_banks
from tunebank.build import (
    check_compiler,
    check_output,
    find_plan,
    inspect_draft,
    with_right_kernels,
    write_artifact,
)
from tunebank.device import detect_device
from tunebank.model import DimValues, InputShapes, Reader, joined
from tunebank.results import CompileResult
from tunebank.runtime.manifest import Manifest
from tunebank.search import Plan, ReuseSettings, deposit_given_up

if TYPE_CHECKING:
    from torch.export import ExportedProgram


def compile_model(
    path: PathLike | ExportedProgram,
    out: PathLike,
    *,
    banks: Sequence[str] = (),
    target: str = "auto",
    threads: int | None = None,
    time_budget_seconds: float = 60.0,
    input_shapes: InputShapes | None = None,
    dims: DimValues | None = None,
    exclude_sources: Collection[str] = (),
    winograd: bool = True,
    verify: bool = True,
    report: Report = silent,
) -> CompileResult:
    """Compiles a model with schedules reused from banks.

    Interrupted during the search (KeyboardInterrupt), it goes on with what was found by then.

    Args:
        path: an ONNX file, or a PyTorch program: a `.pt2` file or an `ExportedProgram`.
        out: the artifact's folder; an artifact that is there is replaced.
        banks: URLs or paths; the first is written. None given: the default bank.
        target: `auto`, a TVM tag, or JSON.
        threads: threads to tune for and to run on; None takes the physical cores.
        time_budget_seconds: search time; 0 measures no candidates.
        input_shapes: by name of an input that the file leaves dynamic a shape, or several.
        dims: by name of a symbolic dimension its values.
        exclude_sources: models whose records are not used.
        winograd: whether convolutions may be computed by Winograd's filtering.
        verify: whether the numbers are compared with ONNX Runtime's.
        report: called with lines of text and `Progress`.

    Raises:
        UsageError: bad input, or an output that can't be written; before any work is done.
        MeasurementError: not one candidate could be measured; nothing is written.
        VerificationError: the numbers differ; nothing is written.
    """
    start = time.monotonic()
    folder = Path(out)
    check_output(folder)
    check_compiler()
    with model_file(path) as source, Reader() as reader:
        reader.start()  # TVM is imported there and here at the same time
        device = detect_device(target, threads=threads)
        runs_here = can_run_here(device, is_needed=verify or time_budget_seconds > 0)
        settings = ReuseSettings(
            budget_seconds=time_budget_seconds,
            exclude_sources=tuple(exclude_sources),
            winograd=winograd,
        )
        with running_measurer(device) as measurer:
            model = load(source, device, (input_shapes, dims), report, reader)
            measurer.wait_until_ready()
            prepared = time.monotonic()
            # After the model: a bad one leaves no empty bank.
            with open_banks(banks, vector_lanes=device.vector_lanes) as bank:
                used = measurer if time_budget_seconds > 0 else None
                plan = find_plan(model, bank, device, used, settings, report=report)
                _check_measured(plan)
                model = joined(model, plan.joins)
                if plan.interrupted:
                    report("interrupted: compiling with what was found")
                searched = time.monotonic()
                report("building" + (" and verifying" if verify else ""))
                inspect = partial(inspect_draft, model, verified=verify)
                write = partial(
                    write_artifact,
                    folder,
                    model,
                    device=device,
                    workers=measurer.pool,
                    budget_seconds=time_budget_seconds,
                    report=report,
                    inspect=inspect if runs_here else _as_it_is,
                )
                plan, manifest = with_right_kernels(plan, write, device, measurer, report)
                deposit_given_up(plan, bank, device, source=model.name)
                if plan.measured:
                    learn_from(bank, device, report)
    if manifest.verified is not None and not manifest.verified.conclusive:
        report(
            "verification is inconclusive: the model's outputs don't follow its inputs (are its "
            "weights constant?), so that wrong kernels would agree too"
        )
    end = time.monotonic()
    return CompileResult(
        path=folder,
        manifest=manifest,
        plan=plan,
        front_half=model.front_half,
        warnings=model.warnings,
        prepare_seconds=prepared - start,
        search_seconds=searched - prepared,
        build_seconds=end - searched,
        total_seconds=end - start,
    )


def _check_measured(plan: Plan) -> None:
    if plan.measured and not any(c.latency_us is not None for c in plan.choices.values()):
        raise nothing_measured(plan.measured)


def _as_it_is(folder: Path, manifest: Manifest) -> Manifest:
    return manifest
