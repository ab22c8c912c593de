"""The work of the commands as functions: compile, tune, plan, bench.

Each checks first what can be wrong (the output, the compiler, the model, the banks), so that
nothing fails after minutes of search. `report` is called with lines of text and with the
`Progress` of a search.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebank.bank import Bank, SqlBank, open_banks
from tunebank.build import (
    check_compiler,
    check_output,
    inspect_draft,
    kernel_entry,
    target_features,
    write_artifact,
)
from tunebank.device import Device, detect_device, missing_features
from tunebank.errors import MeasurementError, TargetError
from tunebank.measure import LocalMeasurer
from tunebank.model import DimValues, InputShapes, Model, Reader, load_model
from tunebank.results import BenchResult, CompileResult, PlanResult, TuneResult
from tunebank.runtime.manifest import Manifest
from tunebank.runtime.session import Session
from tunebank.search import (
    Choice,
    Plan,
    ReuseSettings,
    TuneProgress,
    TuneSettings,
    reuse,
    tune,
)

__all__ = [
    "BenchResult",
    "CompileResult",
    "PlanResult",
    "TuneResult",
    "bench_artifact",
    "compile_model",
    "default_plan",
    "plan_model",
    "tune_model",
]

if TYPE_CHECKING:
    from torch.export import ExportedProgram

PathLike = str | os.PathLike[str]
Report = Callable[[Any], None]

_SECONDS_PER_CANDIDATE = 0.15
"""Build and measurement of one, with the others at work; see the design's numbers."""
_FIRST_CANDIDATES = 3
_PROGRAM_NAME = "program"
"""What a PyTorch program without a file is called."""


def _silent(event: Any) -> None:
    """Reports to nobody."""


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
    verify: bool = True,
    report: Report = _silent,
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
    with _model_file(path) as source, Reader() as reader:
        reader.start()  # TVM is imported there and here at the same time
        device = detect_device(target, threads=threads)
        runs_here = _runs_here(device, is_needed=verify or time_budget_seconds > 0)
        settings = ReuseSettings(
            budget_seconds=time_budget_seconds, exclude_sources=tuple(exclude_sources)
        )
        with _measurer(device) as measurer:
            model = _load(source, device, (input_shapes, dims), report, reader)
            measurer.wait_until_ready()
            prepared = time.monotonic()
            with open_banks(banks) as bank:  # after the model: a bad one leaves no empty bank
                used = measurer if time_budget_seconds > 0 else None
                plan = reuse(model, bank, device, used, settings, report=report)
            _check_measured(plan)
            if plan.interrupted:
                report("interrupted: compiling with what was found")
            searched = time.monotonic()
            report("building" + (" and verifying" if verify else ""))
            manifest = write_artifact(
                folder,
                model,
                plan,
                device,
                workers=measurer.pool,
                budget_seconds=time_budget_seconds,
                report=report,
                inspect=partial(inspect_draft, model, verified=verify) if runs_here else _as_it_is,
            )
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


def tune_model(
    path: PathLike,
    *,
    banks: Sequence[str] = (),
    trials_per_kernel: int = 64,
    time_budget_seconds: float | None = None,
    source: str | None = None,
    target: str = "auto",
    threads: int | None = None,
    input_shapes: InputShapes | None = None,
    dims: DimValues | None = None,
    report: Report = _silent,
) -> TuneResult:
    """Auto-schedules a model's kernels from scratch, to fill a bank.

    Interrupted, it goes on where it stopped when it is called again.

    Args:
        path: an ONNX file, or a PyTorch program.
        banks: URLs or paths; the first is written. None given: the default bank.
        trials_per_kernel: measurements per kernel; those in the bank count.
        time_budget_seconds: search time; None sets no limit.
        source: name to deposit under; None takes the model's.
        target: `auto`, a TVM tag, or JSON.
        threads: threads to tune for; None takes the physical cores.
        input_shapes: by name of an input that the file leaves dynamic a shape, or several.
        dims: by name of a symbolic dimension its values.
        report: called with lines of text and `TuneProgress`.

    Raises:
        UsageError: bad input.
        MeasurementError: measurements were made, and all failed.
    """
    start = time.monotonic()
    device = detect_device(target, threads=threads)
    _runs_here(device, is_needed=True)
    is_any_measured = False

    def watch(progress: TuneProgress) -> None:
        nonlocal is_any_measured
        is_any_measured = is_any_measured or progress.best_us is not None
        report(progress)

    with _measurer(device) as measurer:
        model = _load(Path(path), device, (input_shapes, dims), report)
        measurer.wait_until_ready()
        prepared = time.monotonic()
        name = source or model.name
        settings = TuneSettings(
            source=name, trials_per_kernel=trials_per_kernel, budget_seconds=time_budget_seconds
        )
        with open_banks(banks) as bank:
            measured = tune(model, bank, device, measurer, settings, report=watch)
    if measured and not is_any_measured:
        raise _nothing_measured(measured)
    seconds = time.monotonic() - prepared
    return TuneResult(model.name, name, measured, prepared - start, seconds)


def plan_model(
    path: PathLike,
    *,
    banks: Sequence[str] = (),
    target: str = "auto",
    threads: int | None = None,
    input_shapes: InputShapes | None = None,
    dims: DimValues | None = None,
    exclude_sources: Collection[str] = (),
) -> PlanResult:
    """Finds which kernels of a model have donors. Measures nothing, writes nothing.

    Args:
        path: an ONNX file, or a PyTorch program.
        banks: URLs or paths. None given: the default bank.
        target: `auto`, a TVM tag, or JSON.
        threads: threads to plan for; None takes the physical cores.
        input_shapes: by name of an input that the file leaves dynamic a shape, or several.
        dims: by name of a symbolic dimension its values.
        exclude_sources: models whose records are not used.

    Raises:
        UsageError: bad input.
    """
    device = detect_device(target, threads=threads)
    settings = ReuseSettings(budget_seconds=0.0, exclude_sources=tuple(exclude_sources))
    model = _load(Path(path), device, (input_shapes, dims), _silent)
    with open_banks(banks, create=False) as bank:
        plan = reuse(model, bank, device, None, settings)
        choices = [plan.choices[kernel.key] for kernel in model.kernels]
        kernels = tuple(_planned(choice, bank, device) for choice in choices)
    covered = sum(c.kernel.flops * c.kernel.weight for c in choices if c.match != "none")
    first = sum(1 + min(_FIRST_CANDIDATES - 1, choice.candidates) for choice in choices)
    return PlanResult(
        model=model.name,
        plan=plan,
        kernels=kernels,
        covered_share=covered / model.flops if model.flops else 0.0,
        suggested_seconds=float(round(2 * first * _SECONDS_PER_CANDIDATE)),
    )


def bench_artifact(
    path: PathLike,
    *,
    against: Sequence[str] = ("onnxruntime",),
    threads: int | None = None,
    rounds: int = 10,
    min_seconds: float = 2.0,
    report: Report = _silent,
) -> BenchResult:
    """Times an artifact against others, in turns, on the same inputs and threads.

    Args:
        path: the artifact's folder.
        against: `onnxruntime` (on the file that the artifact was compiled from), `untuned`
            (that file compiled with default schedules), other artifacts, ONNX files (run by
            ONNX Runtime).
        threads: threads for all; None takes those of the artifact.
        rounds: turns that each gets.
        min_seconds: time that each is measured for at least.
        report: called with lines of text and `RoundProgress`.

    Raises:
        UsageError: a name that is none of these, or whose inputs differ.
    """
    from tunebank.contest import contestants
    from tunebank.runtime.bench import bench, ratio

    session = Session(path, threads=threads)
    with contestants(session, against, default_plan=default_plan, report=report) as runs:
        samples = bench(runs, rounds=rounds, min_seconds=min_seconds, report=report)
    own, *others = samples
    return BenchResult(
        model=session.manifest.model,
        threads=session.threads,
        artifact=samples[own],
        against={name: samples[name] for name in others},
        speedups={name: ratio(samples[name], samples[own]) for name in others},
    )


def default_plan(model: Model, device: Device) -> Plan:
    """Every kernel under its default schedule: what a model gets without any donor."""
    empty = SqlBank("sqlite://")
    try:
        return reuse(model, empty, device, None, ReuseSettings(budget_seconds=0.0))
    finally:
        empty.close()


@contextmanager
def _measurer(device: Device) -> Iterator[LocalMeasurer]:
    """Workers that start while the caller goes on, and end with the block."""
    measurer = LocalMeasurer(device)
    try:
        measurer.start()
        yield measurer
    finally:
        measurer.close()


def _load(
    path: Path,
    device: Device,
    shapes: tuple[InputShapes | None, DimValues | None],
    report: Report,
    reader: Reader | None = None,
) -> Model:
    report(f"reading {path}")
    given, dims = shapes
    return load_model(path, device, input_shapes=given, dims=dims, reader=reader, report=report)


@contextmanager
def _model_file(model: Any) -> Iterator[Path]:
    """The model's file; a program that lives in memory is written to one for the block."""
    if isinstance(model, (str, os.PathLike)):
        yield Path(model)
        return
    from tunebank.model.torch_file import save_program

    with tempfile.TemporaryDirectory(prefix="tunebank-") as folder:
        path = Path(folder) / f"{_PROGRAM_NAME}.pt2"
        save_program(model, path)
        yield path


def _runs_here(device: Device, *, is_needed: bool) -> bool:
    """Whether this machine can run code for the device.

    Raises:
        TargetError: it can't, and has to.
    """
    lacking = missing_features(target_features(device))
    if lacking and is_needed:
        raise TargetError(
            f"the target needs {', '.join(lacking)}, which this machine lacks: nothing can be "
            "measured or verified; compile there, or with --time-budget 0 --no-verify"
        )
    return not lacking


def _check_measured(plan: Plan) -> None:
    if plan.measured and not any(c.latency_us is not None for c in plan.choices.values()):
        raise _nothing_measured(plan.measured)


def _nothing_measured(tried: int) -> MeasurementError:
    return MeasurementError(
        f"nothing could be measured: {tried} candidates failed to build or run; see "
        "`tunebank bank ls --status crashed`, and `tunebank doctor`"
    )


def _as_it_is(folder: Path, manifest: Manifest) -> Manifest:
    return manifest


def _planned(choice: Choice, bank: Bank, device: Device) -> dict[str, Any]:
    """A kernel with its donor, and the latency at the donor's rate."""
    entry = kernel_entry(choice).model_dump(mode="json", by_alias=True)
    donor = bank.get(choice.record_id) if choice.record_id else None
    expected = None
    if donor is not None and donor.gflops and donor.device == device.fingerprint:
        expected = choice.kernel.gflop / donor.gflops * 1e6
    return entry | {"expected_us": expected}
