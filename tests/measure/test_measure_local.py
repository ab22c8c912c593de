"""Measuring with real workers: good programs, bad ones, and workers that are lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
from tvm import ir, s_tir, te, tirx

from programs import elementwise, kernel, matmul
from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.measure import LocalMeasurer
from tunebank.schedule import IllegalScheduleError, Scheduled, Space, Trace, default_traces

TARGET = elementwise(shape=(32, 64))


@pytest.fixture(scope="module")
def measurer(device: Device) -> Iterator[LocalMeasurer]:
    """One worker, which most of the tests share; short timeouts."""
    made = LocalMeasurer(device, workers=1, build_timeout_seconds=8, run_timeout_seconds=1.5)
    yield made
    made.close()


@pytest.fixture(scope="module")
def target() -> Kernel:
    return kernel(TARGET)


@pytest.fixture(scope="module")
def good(target: Kernel, device: Device) -> Scheduled:
    return default_of(target, device)


def default_of(target: Kernel, device: Device) -> Scheduled:
    space = Space(target, device)
    for trace in default_traces(space):
        try:
            return space.apply(trace)
        except IllegalScheduleError:
            continue
    raise AssertionError("no legal default")


def impostor(target: Kernel, program: tirx.PrimFunc) -> Scheduled:
    """A candidate whose program is not the kernel's."""
    module = ir.IRModule({"main": program.with_attr("global_symbol", "main")})
    return Scheduled(target, Trace.from_text("[[],[]]"), s_tir.Schedule(module))


def calling(name: str, *arguments: int) -> tirx.PrimFunc:
    """Like `TARGET`, but it adds what a function of the C library returns."""
    call = tirx.call_extern("int32", name, *arguments)
    a, b = (te.placeholder((32, 64), name=name) for name in "ab")
    out = te.compute((32, 64), lambda *i: a(*i) + b(*i) + tirx.Cast("float32", call))
    return te.create_prim_func([a, b, out])


def workers() -> list[psutil.Process]:
    """The worker processes that this process has."""
    return [
        child
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE
        and any("tunebank.measure" in part for part in child.cmdline())
    ]


def after(seconds: float, act: Callable[[], Any]) -> threading.Thread:
    def wait_and_act() -> None:
        time.sleep(seconds)
        act()

    thread = threading.Thread(target=wait_and_act)
    thread.start()
    return thread


def test_a_good_program(measurer: LocalMeasurer, good: Scheduled) -> None:
    (result,) = measurer.measure([good], best_us={})
    assert result.status == "ok", result.error
    assert result.checked
    assert result.latency_us is not None
    assert 0.05 < result.latency_us < 50_000
    assert len(result.samples_us) >= 2
    assert {"build", "run", "check"} <= set(result.stage_seconds)
    assert result.error is None


def test_results_come_in_order(
    measurer: LocalMeasurer, target: Kernel, good: Scheduled, device: Device
) -> None:
    other = default_of(kernel(matmul(m=32, n=32, k=32)), device)
    broken = impostor(target, calling("no_such_function_anywhere", 1))
    results = measurer.measure([good, broken, other, good], best_us={})
    assert [r.status == "ok" for r in results] == [True, False, True, True]
    assert results[0].checked or results[3].checked
    assert results[2].checked


def test_nothing_to_measure(measurer: LocalMeasurer) -> None:
    assert measurer.measure([], best_us={}) == []


def test_what_is_no_contender_is_not_checked(measurer: LocalMeasurer, good: Scheduled) -> None:
    (result,) = measurer.measure([good], best_us={good.kernel.key: 1e-6})
    assert result.status == "ok"
    assert not result.checked


def test_wrong_numbers(measurer: LocalMeasurer, target: Kernel) -> None:
    wrong = impostor(target, elementwise(shape=(32, 64), operator="subtract"))
    (result,) = measurer.measure([wrong], best_us={})
    assert (result.status, result.checked, result.latency_us) == ("wrong", False, None)
    assert result.error
    assert "\n" not in result.error


def test_a_fast_wrong_program_does_not_hide_a_right_one(
    measurer: LocalMeasurer, device: Device
) -> None:
    """It is the fastest by far; the right one must be checked all the same."""
    slow = kernel(elementwise(shape=(512, 512), operator="multiply"))
    right = default_of(slow, device)
    a, b = (te.placeholder((512, 512), name=name) for name in "ab")
    flat = te.compute((512, 512), lambda i, j: tirx.const(0.0, "float32"))
    wrong = impostor(slow, te.create_prim_func([a, b, flat]))
    for batch in ([right, wrong], [wrong, right]):
        results = dict(zip(map(id, batch), measurer.measure(batch, best_us={}), strict=True))
        assert results[id(wrong)].latency_us is None or not results[id(wrong)].checked
        assert results[id(right)].status == "ok"
        assert results[id(right)].checked


def test_one_that_was_outrun_by_chance_runs_again(
    measurer: LocalMeasurer, good: Scheduled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second looks the faster, and proves slower than the first has looked."""
    other = Scheduled(good.kernel, good.trace, good.schedule)
    scripted = {(id(good), 2): 6.0, (id(other), 2): 5.0, (id(good), 8): 6.5, (id(other), 8): 9.0}

    def run(self: LocalMeasurer, job: Any, runs: int) -> tuple[float, ...]:
        return (scripted[id(job.candidate), runs],) * runs

    monkeypatch.setattr(LocalMeasurer, "_run", run)
    first, second = measurer.measure([good, other], best_us={})
    assert (first.latency_us, first.checked) == (6.5, True)
    assert second.latency_us == 9.0


def test_numbers_that_are_not_finite(measurer: LocalMeasurer, target: Kernel) -> None:
    a, b = (te.placeholder((32, 64), name=name) for name in "ab")
    five = tirx.const(5.0, "float32")
    odd = te.compute((32, 64), lambda i, j: te.sqrt(a[i, j] + b[i, j] - five))
    (result,) = measurer.measure([impostor(target, te.create_prim_func([a, b, odd]))], best_us={})
    assert result.status == "wrong"


def test_a_program_that_does_not_build(measurer: LocalMeasurer, target: Kernel) -> None:
    broken = impostor(target, calling("no_such_function_anywhere", 1))
    (result,) = measurer.measure([broken], best_us={})
    assert result.status in ("build_failed", "run_failed", "crashed")
    assert result.error
    assert "\n" not in result.error


@pytest.mark.parametrize("call", ["abort", "raise"])
def test_a_program_that_crashes(
    call: str, measurer: LocalMeasurer, target: Kernel, good: Scheduled
) -> None:
    program = calling("abort") if call == "abort" else calling("raise", int(signal.SIGSEGV))
    results = measurer.measure([good, impostor(target, program), good], best_us={})
    assert [result.status for result in results] == ["ok", "crashed", "ok"]
    assert results[1].error
    assert "\n" not in results[1].error
    assert measurer.measure([good], best_us={})[0].checked, "a new worker"


def test_a_program_that_hangs(measurer: LocalMeasurer, target: Kernel, good: Scheduled) -> None:
    start = time.monotonic()
    results = measurer.measure([impostor(target, calling("sleep", 600)), good], best_us={})
    assert [result.status for result in results] == ["timeout", "ok"]
    assert time.monotonic() - start < 25
    assert results[1].checked


def test_a_worker_that_is_killed_while_it_runs(
    measurer: LocalMeasurer, target: Kernel, good: Scheduled
) -> None:
    assert measurer.measure([good], best_us={})[0].status == "ok"
    (before,) = workers()
    killer = after(0.8, before.kill)
    results = measurer.measure([impostor(target, calling("sleep", 600)), good], best_us={})
    killer.join()
    assert [result.status for result in results] == ["crashed", "ok"]
    assert "SIGKILL" in (results[0].error or "")
    (now,) = workers()
    assert now.pid != before.pid


def test_a_worker_that_is_killed_while_it_builds(measurer: LocalMeasurer, good: Scheduled) -> None:
    assert measurer.measure([good], best_us={})[0].status == "ok"
    (before,) = workers()
    os.kill(before.pid, signal.SIGSTOP)  # so that the build is sure to be under way
    killer = after(0.5, before.kill)
    results = measurer.measure([good, good], best_us={})
    killer.join()
    assert sorted(result.status for result in results) == ["crashed", "ok"]


def test_a_worker_that_is_killed_between_batches(measurer: LocalMeasurer, good: Scheduled) -> None:
    assert measurer.measure([good], best_us={})[0].status == "ok"
    (before,) = workers()
    before.kill()
    time.sleep(0.2)
    statuses = [measurer.measure([good], best_us={})[0].status for _ in range(2)]
    assert statuses[1] == "ok"
    assert statuses[0] in ("ok", "crashed")


def test_a_build_that_hangs(device: Device, good: Scheduled) -> None:
    measurer = LocalMeasurer(device, workers=1, build_timeout_seconds=1.0)
    try:
        assert measurer.measure([good], best_us={})[0].status == "ok"
        own = [worker for worker in workers() if worker.create_time() > time.time() - 10]
        newest = max(own, key=lambda worker: worker.create_time())
        os.kill(newest.pid, signal.SIGSTOP)
        results = measurer.measure([good, good], best_us={})
        assert sorted(result.status for result in results) == ["ok", "timeout"]
    finally:
        measurer.close()


def test_closing_leaves_no_process(device: Device, good: Scheduled) -> None:
    before = {worker.pid for worker in workers()}
    measurer = LocalMeasurer(device, workers=2)
    measurer.start()
    assert len({worker.pid for worker in workers()} - before) == 2
    assert measurer.measure([good, good], best_us={})[0].status == "ok"
    measurer.close()
    assert {worker.pid for worker in workers()} - before == set()
