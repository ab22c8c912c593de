"""The experiments on one model: searches, what takes part in the race, a row of each repeat."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tunebank._version import __version__
from tunebank.api.planning import default_plan
from tunebank.bank import Bank
from tunebank.build import find_plan
from tunebank.device import Device
from tunebank.lab.donor_model import class_shares, donor_scores
from tunebank.lab.field import Field, Race
from tunebank.lab.recorded import own_records, plan_of, trials_of, untuned_latencies
from tunebank.lab.rows import REUSE, SCRATCH, STOCK, Row
from tunebank.lab.scratch import auto_schedule
from tunebank.lab.searches import outcome, search_at
from tunebank.lab.stock import stock_schedule
from tunebank.lab.withheld import Withheld
from tunebank.lab.zoo import Subject, hidden_sources, other_lengths
from tunebank.measure import LocalMeasurer
from tunebank.model import Model
from tunebank.schedule.winograd import winograd_traces
from tunebank.search import Plan, ReuseSettings
from tunebank.search.joining import worthwhile_joins
from tunebank.transfer.pretraining import kernel_trials, learn

UNTUNED, FULL = "untuned", "full"
ONE, MIXED, LENGTH, DIRECT = "one", "mixed", "length", "direct"
"""The modes: the paper's two; another length of the same text; all donors, but schedules alone: no
other algorithms, and no kernels made one."""
_PACKAGES = ("apache-tvm", "onnxruntime", "numpy", "torch", "transformers")

_MULTIPLES = (2, 5, 10, 20)
"""Of the search time of reuse: when a plan from scratch is kept, to be timed in the model."""
_LONGEST = _MULTIPLES[-1]

Report = Callable[[Any], None]


@dataclass(frozen=True)
class EvaluationSettings:
    """What is measured, and for how long.

    Attributes:
        results: file of the rows.
        budgets_seconds: search times; 0 measures nothing.
        repeats: how often each search and each comparison is made.
        cap_seconds: how long auto-scheduling from scratch may take to match, up to 20 times the
            search time of reuse; 0 leaves it out.
        stock_seconds: how long MetaSchedule as it comes is run; 0 leaves it out.
        rounds: turns of each contestant.
        min_seconds: time that each contestant is measured for.
        with_torch: whether PyTorch is a contestant.
        again: measure also what has a row.
    """

    results: Path
    budgets_seconds: tuple[float, ...] = (0.0, 10.0, 30.0, 60.0)
    repeats: int = 3
    cap_seconds: float = 600.0
    stock_seconds: float = 0.0
    rounds: int = 20
    min_seconds: float = 2.0
    with_torch: bool = True
    again: bool = False


@dataclass(frozen=True)
class _Mode:
    """A way to search: what is seen of the bank, for how long, whether by schedules alone."""

    name: str
    donors: Bank
    budgets_seconds: Sequence[float]
    is_direct: bool = False


class Experiments:
    """The experiments on one model."""

    def __init__(
        self,
        subject: Subject,
        model: Model,
        bank: Bank,
        device: Device,
        measurer: LocalMeasurer,
        settings: EvaluationSettings,
        report: Report,
    ) -> None:
        self._subject = subject
        self._model = model
        self._bank = bank
        self._device = device
        self._measurer = measurer
        self._settings = settings
        self._report = report
        hidden = hidden_sources(subject.name, model.kernels, bank)
        self._donors = Withheld(bank, hidden, cost_model=_learnt(bank, hidden, device, report))
        self._lengths = other_lengths(subject.name, bank)
        self._untuned = default_plan(model, device)
        own = own_records(model, bank, device, source=subject.name)
        self._full = plan_of(model, device, own)
        self._trials = trials_of(model, own)
        scores = donor_scores(class_shares(model.kernels, untuned_latencies(own)), self._donors)
        self._donor_model = next((name for name, score in scores.items() if score > 0), "")

    def row(self, experiment: str, repeat: int) -> Row:
        """One repeat of an experiment."""
        make = {REUSE: self._reuse_row, SCRATCH: self._scratch_row, STOCK: self._stock_row}
        return make[experiment](repeat)

    def _reuse_row(self, repeat: int) -> Row:
        plans: dict[str, Plan] = {}
        searches = []
        for mode in self._modes(is_first=repeat == 0):
            for budget, plan in self._search(mode).items():
                plans[f"{mode.name}@{budget:g}"] = plan
                searches.append(outcome(mode.name, budget, plan))
        race = self._race(plans, with_torch=self._settings.with_torch)
        return self._row(REUSE, repeat, race, searches=tuple(searches))

    def _scratch_row(self, repeat: int) -> Row:
        budgets = [budget for budget in self._settings.budgets_seconds if budget > 0]
        reused = self._search(_Mode(MIXED, self._donors, budgets))
        searches = [outcome(MIXED, budget, plan) for budget, plan in reused.items()]
        plans = {f"{MIXED}@{budget:g}": plan for budget, plan in reused.items()}
        best = reused[max(budgets)]
        found = auto_schedule(
            self._model.kernels,
            self._device,
            self._measurer,
            target_us=best.kernels_us,
            cap_seconds=min(self._settings.cap_seconds, _LONGEST * best.search_seconds),
            checkpoints=self._checkpoints(best.search_seconds),
            report=self._report,
        )
        for seconds, at in found.plans(self._model, self._device).items():
            label = f"{SCRATCH}@{seconds:.0f}"
            plans[label] = at
            searches.append(outcome(SCRATCH, seconds, at))
        race = self._race(plans, with_torch=False)
        return self._row(
            SCRATCH,
            repeat,
            race,
            searches=tuple(searches),
            timeline=found.timeline,
            match_seconds=found.match_seconds,
            cap_seconds=self._settings.cap_seconds,
        )

    def _stock_row(self, repeat: int) -> Row:
        """MetaSchedule as it comes; kernels that it did not reach have their default schedule."""
        seconds = self._settings.stock_seconds
        with tempfile.TemporaryDirectory(prefix="tunebank-") as folder:
            found = stock_schedule(
                self._model.kernels,
                self._device,
                Path(folder),
                seconds=seconds,
                report=self._report,
            )
        trials = sum(len(records) for records in found.values())
        plan = replace(plan_of(self._model, self._device, found, seconds=seconds), measured=trials)
        race = self._race({f"{STOCK}@{seconds:g}": plan}, with_torch=False)
        searches = (outcome(STOCK, seconds, plan),)
        return self._row(STOCK, repeat, race, searches=searches, cap_seconds=seconds)

    def _checkpoints(self, seconds: float) -> list[float]:
        """The smaller budgets, the time that reuse took, and multiples of it up to the cap."""
        smaller = [b for b in self._settings.budgets_seconds if 0 < b < 0.9 * seconds]
        times = [seconds * multiple for multiple in _MULTIPLES]
        return [*smaller, seconds, *(t for t in times if t <= self._settings.cap_seconds)]

    def _modes(self, *, is_first: bool) -> Iterator[_Mode]:
        """The searches of a repeat; that by schedules alone is in the first."""
        budgets = self._settings.budgets_seconds
        yield _Mode(MIXED, self._donors, budgets)
        if self._donor_model:
            yield _Mode(ONE, self._only([self._donor_model]), budgets)
        if self._lengths:
            yield _Mode(LENGTH, self._only(self._lengths), (max(budgets),))
        if is_first and self._has_other_ways():
            yield _Mode(DIRECT, self._donors, (max(budgets),), is_direct=True)

    def _has_other_ways(self) -> bool:
        """Whether a kernel may have another algorithm, or two may be made one."""
        if worthwhile_joins(self._model, self._device, winograd=True):
            return True
        return any(winograd_traces(one, self._device) for one in self._model.kernels)

    def _only(self, names: Sequence[str]) -> Withheld:
        others = set(self._bank.sources()) - set(names)
        return Withheld(self._bank, others | {self._subject.name})

    def _search(self, mode: _Mode) -> dict[float, Plan]:
        def search(budget_seconds: float, report: Report) -> Plan:
            return find_plan(
                self._model,
                mode.donors,
                self._device,
                self._measurer if budget_seconds > 0 else None,
                ReuseSettings(
                    budget_seconds,
                    deposit=False,
                    winograd=not mode.is_direct,
                    joins=not mode.is_direct,
                ),
                report=report,
            )

        return search_at(mode.budgets_seconds, search, report=self._report)

    def _race(self, plans: dict[str, Plan], *, with_torch: bool) -> Race:
        settings = self._settings
        with Field(self._model, self._device, self._measurer.pool) as field:
            for name, plan in {UNTUNED: self._untuned, FULL: self._full, **plans}.items():
                self._report(f"{self._subject.name}: building {name}")
                field.add_plan(name, plan)
            field.add_onnxruntime()
            if with_torch and self._subject.is_catalogued:
                for compiled in (False, True):
                    field.add_torch(self._subject.name, compiled=compiled)
            return field.race(
                rounds=settings.rounds, min_seconds=settings.min_seconds, report=self._report
            )

    def _row(
        self,
        experiment: str,
        repeat: int,
        race: Race,
        **others: Any,
    ) -> Row:
        return Row(
            experiment=experiment,
            model=self._subject.name,
            repeat=repeat,
            at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            device=_about(self._device),
            versions=_versions(),
            bank={
                "records": sum(self._bank.stats().records.values()),
                "sources": self._donors.sources(),
                "hidden": sorted(self._donors.withheld),
            },
            donor_model=self._donor_model,
            trials=asdict(self._trials),
            timings_ms=race.timings_ms,
            errors=race.errors,
            failures=race.failures,
            **others,
        )


def _learnt(bank: Bank, hidden: Collection[str], device: Device, report: Report) -> str | None:
    """The cost model that the bank would have without some models; see `Withheld`."""
    report("learning from the other models' trials")
    trials = kernel_trials(bank.find(exclude_sources=sorted(hidden)))
    return learn(trials, threads=device.threads).model_dump_json() if trials else None


def _about(device: Device) -> dict[str, Any]:
    return {
        "fingerprint": device.fingerprint,
        "target": device.target,
        "threads": device.threads,
        "machine": platform.machine(),
    }


def _versions() -> dict[str, str]:
    found = {"tunebank": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
