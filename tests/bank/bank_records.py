"""Records to test banks with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunebank.bank import Record

ASSETS = Path(__file__).parent.parent / "assets"


def make_record(number: int = 0, **changes: Any) -> Record:
    """A record; those of different numbers differ in their schedule and latency."""
    values: dict[str, Any] = {
        "kernel_key": "kernel-a",
        "class_key": "class-a",
        "anchor_key": "anchor-a",
        "kernel_name": "matmul_add",
        "kernel_ir": '{"program": "a"}',
        "flops": 2e6,
        "trace": f"[[],[[0,{number}]]]",
        "status": "ok",
        "latency_us": 10.0 + number,
        "samples_us": (10.0 + number,),
        "source": "resnet18",
        "origin": "tune",
        "target": '{"kind":"llvm"}',
        "device": "cpu-a",
        "threads": 2,
        "tvm_version": "0.27.0",
        "created_at": "2026-01-01T00:00:00+00:00",
    }
    return Record(**(values | changes))


def make_failure(number: int = 0, **changes: Any) -> Record:
    """A record of a schedule that did not build."""
    failed = {"status": "build_failed", "latency_us": None, "samples_us": (), "error": "no"}
    return make_record(number, **(failed | changes))
