"""A model's own records never serve it in an experiment, under whatever name they lie."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from networks import write_dense_network
from programs import kernel, matmul, model_of
from tunebank.bank import Bank, SqlBank
from tunebank.device import Device, detect_device
from tunebank.kernel import Kernel
from tunebank.lab.donor_model import class_shares, donor_scores
from tunebank.lab.evaluation import evaluate_models
from tunebank.lab.experiments import EvaluationSettings
from tunebank.lab.recorded import own_records, plan_of, trials_of
from tunebank.lab.rows import REUSE, SCRATCH, Row, read_rows
from tunebank.lab.scratch import auto_schedule
from tunebank.lab.tuning import ZooSettings, tune_models
from tunebank.lab.withheld import Withheld
from tunebank.lab.zoo import ZOO, hidden_sources, other_lengths, same_architecture
from tunebank.measure.fake import FakeMeasurer
from tunebank.search import ReuseSettings, TuneSettings, reuse, tune
from tunebank.transfer import match


def tuned(kernels: Sequence[Kernel], device: Device, *sources: str) -> SqlBank:
    """A bank with a few trials of the kernels for each source."""
    bank = SqlBank("sqlite://")
    for source in sources:
        tune(kernels, bank, device, FakeMeasurer(), TuneSettings(source, trials_per_kernel=3))
    return bank


def layers(*sizes: int) -> tuple[Kernel, ...]:
    return tuple(kernel(matmul(m=1, n=size, k=32, epilogue=["bias"])) for size in sizes)


@pytest.mark.parametrize("name", ZOO)
def test_an_architecture_is_known_by_all_its_names(name: str) -> None:
    names = same_architecture(name)
    assert name in names
    assert all(same_architecture(other) == names for other in names & set(ZOO))


def test_names_of_one_architecture() -> None:
    assert {"bert_128", "bert_256"} <= same_architecture("bert_256")
    assert {"resnet50", "light_resnet50"} <= same_architecture("resnet50")
    assert "resnet18_int8" in same_architecture("resnet18")
    assert "light_inception_v1" in same_architecture("googlenet")
    assert "resnet50" not in same_architecture("resnet18")
    assert same_architecture("mine") == {"mine"}


def test_the_same_network_under_an_unknown_name_is_hidden(device: Device) -> None:
    own, others = layers(64, 96, 128), layers(64, 40, 48)
    bank = tuned(own, device, "mine", "renamed")
    tune(others, bank, device, FakeMeasurer(), TuneSettings("another", trials_per_kernel=3))
    assert hidden_sources("mine", own, bank) == {"mine", "renamed"}, "one kernel of three is shared"


def test_what_is_withheld_cannot_be_had(device: Device) -> None:
    own = layers(64)
    bank = tuned(own, device, "mine", "another")
    withheld = Withheld(bank, ["mine"])
    ids = [r.id for r in bank.find(source="mine", status=None)]
    assert ids
    assert all(withheld.get(one) is None for one in ids)
    assert withheld.sources() == ["another"]
    assert withheld.find(source="mine", status=None) == []
    assert {r.source for r in withheld.find(kernel_key=own[0].key)} == {"another"}
    assert {r.source for r in withheld.find(class_key=own[0].class_key, best_per_kernel=9)} == {
        "another"
    }
    changed = [replace(r, source="new") for r in bank.find(limit=1)]
    assert withheld.deposit(changed) == 0
    assert "new" not in bank.sources()


def test_no_donor_of_a_search_is_withheld(device: Device) -> None:
    own = layers(64, 96)
    bank = tuned(own, device, "mine", "renamed")
    tune(layers(40), bank, device, FakeMeasurer(), TuneSettings("another", trials_per_kernel=3))
    withheld = Withheld(bank, hidden_sources("mine", own, bank))
    for one in own:
        assert {donor.record.source for donor in match(one, withheld)} == {"another"}
    plan = reuse(
        model_of(*own), withheld, device, FakeMeasurer(), ReuseSettings(2.0, deposit=False)
    )
    sources = {choice.source for choice in plan.choices.values()}
    sources |= {name for choice in plan.choices.values() for name in choice.donors_us}
    assert sources <= {"", "another"}


def test_lengths_of_one_network() -> None:
    class Named:
        def sources(self) -> list[str]:
            return ["bert_128", "bert_256", "mobilebert_128", "mobilebert_256", "bert_large"]

    assert other_lengths("bert_128", Named()) == ["bert_256"]  # type: ignore[arg-type]
    assert other_lengths("mobilebert_256", Named()) == ["mobilebert_128"]  # type: ignore[arg-type]
    assert other_lengths("resnet18", Named()) == []  # type: ignore[arg-type]


def test_the_one_donor_is_the_paper_s(device: Device) -> None:
    """The square root: four kernels of the class count twice as much as one."""
    bank = SqlBank("sqlite://")
    for source, sizes in (("narrow", (40,)), ("wide", (40, 48, 56, 72)), ("other", ())):
        settings = TuneSettings(source, trials_per_kernel=2)
        tune(layers(*sizes), bank, device, FakeMeasurer(), settings)
    other = kernel(matmul(m=8, n=8, k=8))
    tune([other], bank, device, FakeMeasurer(), TuneSettings("other", trials_per_kernel=2))
    target = (*layers(64), kernel(matmul(m=16, n=16, k=16)))
    shares = class_shares(target, {target[0].key: 75.0, target[1].key: 25.0})
    assert shares == {target[0].class_key: 0.75, target[1].class_key: 0.25}
    scores = donor_scores(shares, bank)
    assert list(scores.items()) == [("wide", 1.5), ("narrow", 0.75), ("other", 0.25)]


def test_full_auto_scheduling_is_the_best_of_the_own_trials(device: Device) -> None:
    own = layers(64, 96)
    bank = tuned(own, device, "mine", "another")
    model = model_of(*own)
    mine = own_records(model, bank, device, source="mine")
    plan = plan_of(model, device, mine)
    for one in own:
        records = bank.find(kernel_key=one.key, source="mine")
        assert plan.choices[one.key].latency_us == records[0].latency_us
        assert plan.choices[one.key].source == "mine"
    assert trials_of(model, mine).total == 6
    assert trials_of(model, mine).least == 3
    nobody = plan_of(model, device, own_records(model, bank, device, source="nobody"))
    assert {choice.origin for choice in nobody.choices.values()} == {"default"}


def test_scratch_ends_when_it_matches(device: Device) -> None:
    own = layers(64)
    easy = auto_schedule(own, device, FakeMeasurer(), target_us=1e9, cap_seconds=30.0)
    assert easy.match_seconds is not None
    assert len(easy.timeline) == 1
    assert easy.timeline[0].alone_us is not None
    fake = FakeMeasurer(seconds_per_candidate=0.05)
    hard = auto_schedule(own, device, fake, target_us=0.0, cap_seconds=2.0, checkpoints=[1.0, 1.5])
    assert hard.match_seconds is None
    assert sorted(hard.best)[:2] == [1.0, 1.5]
    plans = hard.plans(model_of(*own), device)
    # Before the first batch it stands at the default schedule.
    choices = [plans[seconds].choices[own[0].key] for seconds in sorted(plans)]
    latencies = [choice.latency_us or math.inf for choice in choices]
    assert latencies == sorted(latencies, reverse=True), "it only gets better"
    times = [point.kernels_us for point in hard.timeline]
    assert times == sorted(times, reverse=True)
    assert all((point.alone_us or math.inf) >= point.kernels_us for point in hard.timeline)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Row], Bank, Path]:
    """Two small networks tuned and evaluated for real."""
    folder = tmp_path_factory.mktemp("lab")
    paths = [
        str(write_dense_network(folder / f"{name}.onnx", repeated=repeated))
        for repeated, name in enumerate(("one", "two"), start=1)
    ]
    url = str(folder / "zoo.db")
    tune_models(paths, ZooSettings(4, 4), cache=folder, url=url, threads=1)
    settings = EvaluationSettings(
        results=folder / "rows.jsonl", budgets_seconds=(0.0, 2.0), repeats=1,
        cap_seconds=3.0, rounds=3, min_seconds=0.05, with_torch=False,
    )  # fmt: skip
    found = evaluate_models(paths, settings, cache=folder, url=url, threads=1)
    return found, SqlBank(url), folder


def test_an_evaluation_has_everyone(rows: tuple[list[Row], Bank, Path]) -> None:
    found, _, folder = rows
    assert [(row.model, row.experiment) for row in found] == [
        ("one", REUSE), ("one", SCRATCH), ("two", REUSE), ("two", SCRATCH)
    ]  # fmt: skip
    assert len(list(read_rows(folder / "rows.jsonl"))) == 4
    row = found[0]
    assert {"untuned", "full", "onnxruntime", "mixed@0", "mixed@2"} <= set(row.timings_ms)
    assert max(row.errors.values()) < 1e-4
    assert row.failures == {}
    assert {search.mode for search in found[1].searches} == {"mixed", "scratch"}
    for search in row.searches:
        assert search.search_seconds < search.budget_seconds + 4.0
        for one in search.kernels:  # microseconds, on a machine that does other things too
            assert (one.latency_us or 0.0) <= 1.5 * (one.untuned_us or math.inf)


def test_an_evaluation_leaves_the_model_out(rows: tuple[list[Row], Bank, Path]) -> None:
    """The two networks have the same kernels, so that each is the other under another name."""
    found, bank, _ = rows
    assert {row.model: row.bank["hidden"] for row in found} == {
        "one": ["one", "two"], "two": ["one", "two"]
    }  # fmt: skip
    assert all(row.bank["sources"] == [] for row in found)
    for row in found:
        for search in row.searches:
            if search.mode != "scratch":
                assert {kernel.source for kernel in search.kernels} == {""}
    assert set(bank.sources()) == {"one", "two"}, "an experiment deposits nothing"


def test_what_has_a_row_is_not_measured_again(rows: tuple[list[Row], Bank, Path]) -> None:
    found, _, folder = rows
    settings = EvaluationSettings(folder / "rows.jsonl", repeats=1, cap_seconds=4.0)
    names = [str(folder / f"{name}.onnx") for name in ("one", "two")]
    again = evaluate_models(names, settings, cache=folder, url=str(folder / "zoo.db"), threads=1)
    assert again == found
    assert len(list(read_rows(folder / "rows.jsonl"))) == 4


def test_shared_kernels_are_tuned_once(rows: tuple[list[Row], Bank, Path]) -> None:
    _, bank, _ = rows
    records: dict[tuple[str, str], set[str]] = {}
    for one in bank.find(status=None):
        assert one.device == detect_device(threads=1).fingerprint
        records.setdefault((one.kernel_key, one.trace), set()).add(one.source)
    shared = [sources for sources in records.values() if len(sources) == 2]
    assert shared, "the networks have kernels in common"
    kernels = {key for (key, _), sources in records.items() if len(sources) == 2}
    assert all(len(s) == 2 for (key, _), s in records.items() if key in kernels)
