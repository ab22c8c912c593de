"""`tunebank.device.doctor`: each check sees what it is for."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import pytest

from tunebank import _tvm
from tunebank.bank import SqlBank
from tunebank.bank.health import check_banks
from tunebank.device import doctor

PAIR = {"apache-tvm": _tvm.TVM_VERSION, "apache-tvm-ffi": _tvm.TVM_FFI_VERSION}


def test_the_pair_of_tvm_libraries() -> None:
    assert doctor.check_tvm_versions(PAIR.__getitem__).status == "ok"
    other = PAIR | {"apache-tvm-ffi": "0.1.15.post2"}
    check = doctor.check_tvm_versions(other.__getitem__)
    assert check.status == "fail"
    assert f"apache-tvm-ffi=={_tvm.TVM_FFI_VERSION}" in check.fix


def test_a_library_that_is_missing() -> None:
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    assert doctor.check_library("onnx", version).status == "fail"
    assert doctor.check_tvm_versions(version).status == "fail"


def test_the_libraries_installed_here_are_the_pinned_ones() -> None:
    assert doctor.check_tvm_versions().status == "ok"


def test_tvm_builds_and_runs_here() -> None:
    checks = doctor.check_tvm_works(1)
    assert [(check.status, check.name) for check in checks] == [
        ("ok", "TVM builds and runs"),
        ("ok", "target"),
    ]


@pytest.mark.parametrize(
    ("program", "found"),
    [
        ("import os; os.abort()", "SIGABRT"),
        ("raise ImportError('libtvm.so: no such file')", "libtvm.so: no such file"),
        ("print('hello')", "none"),
        ("print('{\"right\": false}')", "wrong numbers"),
    ],
)
def test_a_tvm_that_does_not_work(program: str, found: str) -> None:
    (check,) = doctor.check_tvm_works(command=(sys.executable, "-c", program))
    assert check.status == "fail"
    assert found in check.found
    assert check.fix


def test_a_target_beyond_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = {"mcpu": "znver5", "features": ["avx2", "avx512f"], "vector_lanes": 16}
    monkeypatch.setattr("tunebank.device.device.cpu_flags", lambda: frozenset({"avx2", "avx512f"}))
    assert doctor.check_target(answer).status == "ok"
    monkeypatch.setattr("tunebank.device.device.cpu_flags", lambda: frozenset({"avx2"}))
    check = doctor.check_target(answer)
    assert check.status == "fail"
    assert "lacks avx512f" in check.found


def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    assert doctor.check_compiler(lambda name: None).status == "fail"
    only_clang = {"clang": "/usr/bin/clang"}
    assert doctor.check_compiler(only_clang.get).found == "/usr/bin/clang"
    monkeypatch.setenv("CXX", "icpx")
    assert "icpx" in doctor.check_compiler(only_clang.get).found


def test_thread_variables() -> None:
    assert doctor.check_thread_variables({}).status == "ok"
    check = doctor.check_thread_variables({"TVM_NUM_THREADS": "1"})
    assert (check.status, check.fix) == ("warn", "unset TVM_NUM_THREADS, and use --threads")


def test_a_quota_below_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "available_cores", lambda: 0)
    assert "quota" in doctor.check_threads().found


def test_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def free(count: int) -> str:
        usage = type("Usage", (), {"free": count})
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage)
        return doctor.check_disk("disk", tmp_path / "not" / "there").status

    assert [free(10**7), free(10**9), free(10**11)] == ["fail", "warn", "ok"]


def test_a_bank(tmp_path: Path) -> None:
    path = tmp_path / "new" / "bank.db"
    assert "not there yet" in check_banks(str(path))[0].found
    assert not path.parent.exists(), "a check makes nothing"
    SqlBank(str(path)).close()
    assert check_banks(str(path))[0].status == "ok"
    path.write_text("no bank")
    assert check_banks(str(path))[0].status == "fail"
    # A folder that can't be made: its parent is a file.
    assert check_banks(str(path / "below" / "bank.db"))[0].status == "fail"
