"""Artifacts that can't be used: each is refused with one clear line, before anything is loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from small_nets import write_two_input_net
from tunebank import compile_model
from tunebank.errors import ArtifactError
from tunebank.runtime import Session, is_artifact, read_manifest

Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("manifest")
    model = write_two_input_net(folder / "two.onnx")
    compile_model(model, folder / "out", banks=[str(folder / "bank.db")], time_budget_seconds=0)
    return folder / "out"


@pytest.fixture
def artifact(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "out"))


def _edit(key: str, value: Any) -> Change:
    def change(folder: Path) -> None:
        path = folder / "manifest.json"
        data = json.loads(path.read_text())
        data[key] = value
        path.write_text(json.dumps(data))

    return change


def library(folder: Path) -> Path:
    (path,) = folder.glob("kernels-*.so")
    return path


def _flip_byte(folder: Path) -> None:
    path = library(folder)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (shutil.rmtree, "not an artifact"),
        (lambda folder: (folder / "manifest.json").unlink(), "not an artifact"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "damaged at JSON"),
        (lambda folder: (folder / "manifest.json").write_bytes(b"\xff\xfe"), "damaged"),
        (_edit("schema_version", 3), "artifact of schema 3.*upgrade tunebank"),
        (_edit("schema_version", 1), "artifact of schema 1.*compile the model again"),
        (_edit("threads", "many"), "damaged at threads"),
        (_edit("surprise", 1), "damaged at surprise"),
        (
            _edit("library", {"name": "../evil.so", "sha256": "0", "size_bytes": 1}),
            "damaged at library.name",
        ),
        (lambda folder: library(folder).unlink(), r"kernels-\w+.so is missing"),
        (_flip_byte, r"kernels-\w+.so is not the file that the manifest names"),
        (lambda folder: (folder / "program.vm").write_bytes(b""), "program.vm is not the file"),
        (_edit("cpu_features", ["avx", "warp_drive"]), "CPU with warp_drive, which this one lacks"),
        (
            _edit("versions", {"tunebank": "0", "tvm": "9.9", "tvm_ffi": "0"}),
            "made by TVM 9.9, installed is",
        ),
    ],
)
def test_unusable_artifacts(artifact: Path, change: Change, message: str) -> None:
    change(artifact)
    with pytest.raises(ArtifactError, match=message) as caught:
        Session(artifact)
    assert "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_whole_artifact_opens(artifact: Path) -> None:
    assert is_artifact(artifact)
    assert Session(artifact).manifest == read_manifest(artifact)
