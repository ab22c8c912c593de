"""Made-up rows of experiments, to test what is made of them."""

from __future__ import annotations

from typing import Any

from tunebank.lab.rows import (
    REUSE,
    SCRATCH,
    STOCK,
    KernelOutcome,
    Row,
    SearchOutcome,
    TimelinePoint,
)

LATENCIES_MS = {
    "untuned": 12.0,
    "full": 8.0,
    "onnxruntime": 10.0,
    "torch": 20.0,
    "one@0": 12.0,
    "one@60": 10.0,
    "mixed@0": 11.0,
    "mixed@60": 9.0,
}


def kernel(name: str = "conv2d_add_relu", **changes: Any) -> KernelOutcome:
    values: dict[str, Any] = {
        "key": "k1",
        "class_key": "c1",
        "name": name,
        "weight": 2,
        "gflop": 0.2,
        "match": "class",
        "source": "mobilenet_v2",
        "untuned_us": 100.0,
        "latency_us": 80.0,
        "donors_us": {"mobilenet_v2": 80.0, "vgg16": 120.0},
    }
    return KernelOutcome(**{**values, **changes})


def search(mode: str, budget: float, **changes: Any) -> SearchOutcome:
    values: dict[str, Any] = {
        "mode": mode,
        "budget_seconds": budget,
        "search_seconds": 0.9 * budget,
        "measured": 100,
        "candidates": 200,
        "invalid": 1,
        "failed": 2,
        "wrong": 1,
        "without_donor": 3,
        "slower": 0,
        "kernels_us": 9000.0,
        "kernels": (kernel(), kernel("dense", source="", donors_us={})),
    }
    return SearchOutcome(**{**values, **changes})


def timed(latencies_ms: dict[str, float], *, rounds: int = 4) -> dict[str, Any]:
    """The same latency in every run of every round."""
    return {name: tuple((ms,) * 3 for _ in range(rounds)) for name, ms in latencies_ms.items()}


def reuse_row(model: str = "resnet18", repeat: int = 0, **changes: Any) -> Row:
    values: dict[str, Any] = {
        "experiment": REUSE,
        "model": model,
        "repeat": repeat,
        "at": "2026-01-02T03:04:05+00:00",
        "device": {"fingerprint": "cpu/2t", "target": "{}", "threads": 2},
        "versions": {"tunebank": "1", "apache-tvm": "0.27"},
        "bank": {"records": 10, "sources": ["mobilenet_v2"], "hidden": [model]},
        "donor_model": "mobilenet_v2",
        "trials": {"total": 640, "least": 64},
        "searches": tuple(search(m, b) for m in ("one", "mixed") for b in (0.0, 60.0)),
        "timings_ms": timed(LATENCIES_MS),
        "errors": {"mixed@60": 1e-6, "onnxruntime": 0.0},
    }
    return Row(**{**values, **changes})


def scratch_row(model: str = "resnet18", **changes: Any) -> Row:
    values = {
        "experiment": SCRATCH,
        "searches": (
            search("mixed", 10.0, kernels_us=10000.0),
            search("mixed", 60.0),
            search("scratch", 54.0),
            search("scratch", 600.0),
        ),
        "timings_ms": timed(
            {"untuned": 12.0, "onnxruntime": 10.0, "mixed@60": 9.0, "scratch@54": 11.7,
             "scratch@600": 9.9}
        ),
        "timeline": (
            TimelinePoint(5.0, 16, 12000.0),
            TimelinePoint(90.0, 300, 9900.0, 14000.0),
            TimelinePoint(600.0, 2000, 9100.0, 9200.0),
        ),
        "match_seconds": None,
        "cap_seconds": 600.0,
    }  # fmt: skip
    return reuse_row(model, **{**values, **changes})


def stock_row(model: str = "resnet18", **changes: Any) -> Row:
    values = {
        "experiment": STOCK,
        "searches": (search("stock", 300.0, measured=500),),
        "timings_ms": timed({"full": 8.0, "onnxruntime": 10.0, "stock@300": 16.0}),
        "cap_seconds": 300.0,
    }
    return reuse_row(model, **{**values, **changes})
