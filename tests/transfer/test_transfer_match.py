"""Which records become donors, and at which level."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from programs import conv2d, elementwise, kernel, matmul, softmax
from tunebank.bank import Bank, Record, SqlBank
from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.schedule import Trace
from tunebank.schedule.winograd import Parameters
from tunebank.transfer import Donor, Matcher, match
from tunebank.transfer.match import PER_DONOR_KERNEL


def dense(*, n: int = 1000, k: int = 512, epilogue: tuple[str, ...] = ("bias",)) -> Kernel:
    """A fully connected layer as it comes out of a model; the default is ResNet-18's own."""
    func = matmul(m=1, n=n, k=k, epilogue=epilogue)
    return kernel(func.with_attr("layout_free_buffers", [1, 2] if epilogue else [1]))


def convolution(*, size: int = 7, cin: int = 512, cout: int = 512, **changes: Any) -> Kernel:
    """A convolution as it comes out of a model; the default is ResNet-18's last."""
    options: dict[str, Any] = {"epilogue": ["wide_bias", "relu"], **changes}
    func = conv2d(size=size, cin=cin, cout=cout, **options)
    return kernel(func.with_attr("layout_free_buffers", [1, 2]))


def levels(donors: list[Donor]) -> set[str]:
    return {donor.level for donor in donors}


def test_the_very_kernel(resnet18_bank: Bank) -> None:
    donors = match(convolution(), resnet18_bank)
    assert levels(donors) == {"exact"}
    assert len(donors) == PER_DONOR_KERNEL
    assert {donor.record.kernel_key for donor in donors} == {convolution().key}


def test_its_class(resnet18_bank: Bank) -> None:
    donors = match(convolution(size=14, cin=256, cout=128), resnet18_bank)
    assert levels(donors) == {"class"}
    assert {donor.record.kernel_key for donor in donors} == {convolution().key}
    assert levels(match(dense(n=64), resnet18_bank)) == {"class"}


@pytest.mark.parametrize(
    "changes",
    [{"stride": 2}, {"window": 1}, {"epilogue": ["relu"]}, {"epilogue": ["wide_bias", "add"]}],
    ids=str,
)
def test_its_anchor(resnet18_bank: Bank, changes: dict[str, Any]) -> None:
    donors = match(convolution(size=14, **changes), resnet18_bank)
    assert levels(donors) == {"anchor"}
    assert {donor.record.kernel_key for donor in donors} == {convolution().key}


def test_none(resnet18_bank: Bank) -> None:
    strangers = (
        convolution(dtype="float16"),
        convolution(layout="NCHW"),
        kernel(softmax()),
        kernel(elementwise()),
    )
    for stranger in strangers:
        assert match(stranger, resnet18_bank) == []


def test_a_kernel_without_a_reduction_has_no_anchor_donors() -> None:
    """Their anchor key is empty, and so is that of every other such kernel."""
    bank = bank_of(record_of(kernel(elementwise(operator="multiply")), latency_us=1.0))
    assert match(kernel(elementwise()), bank) == []


def test_a_model_may_be_hidden(resnet18_bank: Bank) -> None:
    assert match(convolution(), resnet18_bank, exclude_sources=["resnet18"]) == []
    assert match(convolution(), resnet18_bank, exclude_sources=["resnet50"])


def test_a_hidden_model_does_not_take_the_place_of_another(resnet18_bank: Bank) -> None:
    shown = [record_of(dense(), latency_us=900.0 + n, source="shown") for n in range(2)]
    hidden = [record_of(dense(), latency_us=1.0 + n, source="hidden") for n in range(9)]
    donors = match(dense(), bank_of(*shown, *hidden), exclude_sources=["hidden"])
    assert [donor.record.latency_us for donor in donors] == [900.0, 901.0]


def test_failures_are_no_donors() -> None:
    failed = replace(
        record_of(dense(), latency_us=1.0), status="wrong", latency_us=None, samples_us=()
    )
    assert match(dense(), bank_of(failed)) == []


def test_what_was_wrong_is_known_by_kernel_and_device(device: Device) -> None:
    failure = {"status": "wrong", "latency_us": None, "samples_us": ()}
    wrong = replace(record_of(dense(), latency_us=1.0), **failure, device=device.fingerprint)
    bank = bank_of(
        wrong,
        replace(wrong, trace="[[],[]]", device="other"),
        replace(wrong, trace="[[],[]]", status="build_failed"),
        record_of(dense(), latency_us=2.0, device=device.fingerprint),
    )
    identity = Trace.from_text(wrong.trace).identity
    matcher = Matcher(bank)
    assert matcher.known_wrong(dense(), device) == {identity}
    assert matcher.known_wrong(dense(n=64), device) == frozenset()
    hidden = Matcher(bank, exclude_sources=[wrong.source])
    assert hidden.known_wrong(dense(), device) == frozenset()


def test_what_kernels_have_in_common_is_read_once(
    resnet18_bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    find = resnet18_bank.find

    def counted(**conditions: Any) -> list[Record]:
        asked.append(conditions)
        return find(**conditions)

    monkeypatch.setattr(resnet18_bank, "find", counted)
    matcher = Matcher(resnet18_bank)
    kernels = [convolution(size=size) for size in (7, 14, 28)]
    donors = [matcher.donors(one) for one in kernels]
    assert sum("class_key" in one for one in asked) == 1
    assert sum("anchor_key" in one for one in asked) == 1
    assert donors == [match(one, resnet18_bank) for one in kernels]


def test_standing_is_relative_to_the_best_of_the_kernel_and_device() -> None:
    bank = bank_of(
        record_of(dense(), latency_us=10.0),
        record_of(dense(), latency_us=40.0),
        record_of(dense(), latency_us=50.0, device="other"),
        record_of(dense(n=64), latency_us=5.0),
    )
    standing = {d.record.latency_us: d.standing for d in match(dense(k=99), bank)}
    assert standing == {10.0: 1.0, 40.0: 0.25, 50.0: 1.0, 5.0: 1.0}


def test_the_best_few_of_each_kernel_nearest_level_first() -> None:
    bank = bank_of(
        *[record_of(dense(), latency_us=20.0 + n) for n in range(9)],
        *[record_of(dense(n=64), latency_us=1.0 + n) for n in range(9)],
        *[record_of(dense(n=64, epilogue=()), latency_us=0.5 + n) for n in range(9)],
    )
    donors = match(dense(), bank)
    assert [donor.level for donor in donors] == ["exact"] * 4 + ["class"] * 4 + ["anchor"] * 4
    assert [donor.record.latency_us for donor in donors[:8]] == [20, 21, 22, 23, 1, 2, 3, 4]
    assert len({donor.record.id for donor in donors}) == len(donors)


def test_a_schedule_that_several_models_have_counts_once() -> None:
    shared = [record_of(dense(), latency_us=10.0, source=source) for source in "abc"]
    others = [record_of(dense(), latency_us=20.0 + n) for n in range(5)]
    donors = match(dense(), bank_of(*shared, *others))
    assert [donor.record.latency_us for donor in donors] == [10, 20, 21, 22]


def test_winograd_schedules_leave_room_for_others() -> None:
    quick = [
        record_of(convolution(), latency_us=1.0 + n, trace=Parameters(4, 8, 8, n).trace.text)
        for n in (1, 2, 3)
    ]
    direct = [record_of(convolution(), latency_us=20.0 + n) for n in range(5)]
    donors = match(convolution(), bank_of(*quick, *direct))
    assert [donor.record.latency_us for donor in donors] == [2, 20, 21, 22]


def bank_of(*records: Record) -> Bank:
    bank = SqlBank("sqlite://")
    bank.deposit(records)
    return bank


def record_of(donor: Kernel, *, latency_us: float, **changes: Any) -> Record:
    """A record of that kernel; its schedule does nothing, each latency another one."""
    values: dict[str, Any] = {
        "kernel_key": donor.key,
        "class_key": donor.class_key,
        "anchor_key": donor.anchor_key,
        "kernel_name": donor.name,
        "kernel_ir": donor.ir,
        "flops": donor.flops,
        "trace": f'[[["GetSBlock",[],["#{int(2 * latency_us)}","main"],["b0"]]],[]]',
        "status": "ok",
        "latency_us": latency_us,
        "samples_us": (latency_us,),
        "source": "a model",
        "origin": "tune",
        "target": '{"kind":"llvm"}',
        "device": "here",
        "threads": 1,
        "tvm_version": "0.27",
        "created_at": "2026-01-01T00:00:00+00:00",
    }
    return Record(**(values | changes))
