"""Which kernels of a model have donors."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from tunebank.api.common import PathLike, load, silent
from tunebank.bank import Bank, SqlBank, open_banks
from tunebank.build import kernel_entry
from tunebank.device import Device, detect_device
from tunebank.model import DimValues, InputShapes, Model, joined
from tunebank.results import PlanResult
from tunebank.search import Choice, Plan, ReuseSettings, reuse

_SECONDS_PER_CANDIDATE = 0.15
"""Build and measurement of one, with the others at work; see the design's numbers."""
_FIRST_CANDIDATES = 3


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
    model = load(Path(path), device, (input_shapes, dims), silent)
    with open_banks(banks, create=False, vector_lanes=device.vector_lanes) as bank:
        plan = reuse(model, bank, device, None, settings)
        choices = [plan.choices[kernel.key] for kernel in joined(model, plan.joins).kernels]
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


def default_plan(model: Model, device: Device) -> Plan:
    """Every kernel under its default schedule: what a model gets without donor and measurement.

    Without Winograd's filtering and without joint kernels: it is what full auto-scheduling starts
    from as well.
    """
    empty = SqlBank("sqlite://")
    try:
        settings = ReuseSettings(budget_seconds=0.0, winograd=False, joins=False)
        return reuse(model, empty, device, None, settings)
    finally:
        empty.close()


def _planned(choice: Choice, bank: Bank, device: Device) -> dict[str, Any]:
    """A kernel with its donor, and the latency at the donor's rate."""
    entry = kernel_entry(choice).model_dump(mode="json", by_alias=True)
    donor = bank.get(choice.record_id) if choice.record_id else None
    expected = None
    if donor is not None and donor.gflops and donor.device == device.fingerprint:
        expected = choice.kernel.gflop / donor.gflops * 1e6
    return entry | {"expected_us": expected}
