"""Damaged models, over 300 of them: each ends in one line that says what is wrong, or compiles."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from damage import BYTES, MEANING, MODELS

from tunebank.errors import TunebankError
from tunebank.model import Model

Read = Callable[..., Model]

_OF_BYTES = 10
_OF_MEANING = 4


def outcome(read: Read, path: Path) -> str:
    """Empty if the file was read as a model, else the error; both leave this process alive."""
    try:
        read(path)
    except TunebankError as error:
        return str(error)
    return ""


def check(said: str, path: Path) -> None:
    """An error is one line, names the file, and comes of no crash."""
    if said:
        assert said.startswith(f"{path}: ")
        assert "\n" not in said
        assert "crash" not in said, said
        assert len(said) < 1500, said


@pytest.mark.parametrize("kind", BYTES)
@pytest.mark.parametrize("name", MODELS)
def test_damaged_bytes(name: str, kind: str, read: Read, tmp_path: Path) -> None:
    whole, path = MODELS[name](), tmp_path / "damaged.onnx"
    said = []
    for seed in range(_OF_BYTES):
        path.write_bytes(BYTES[kind](whole, random.Random(f"{name} {kind} {seed}")))
        said.append(outcome(read, path))
        check(said[-1], path)
    if kind == "cut":
        assert all(said), "a part of a model is no model"


@pytest.mark.parametrize("kind", MEANING)
@pytest.mark.parametrize("name", MODELS)
def test_damaged_meaning(name: str, kind: str, read: Read, tmp_path: Path) -> None:
    path = tmp_path / "damaged.onnx"
    for seed in range(_OF_MEANING):
        model = onnx.ModelProto.FromString(MODELS[name]())
        MEANING[kind](model, random.Random(f"{name} {kind} {seed}"))
        path.write_bytes(model.SerializeToString())
        check(outcome(read, path), path)


@pytest.mark.parametrize("name", MODELS)
def test_the_whole_models_are_read(name: str, read: Read, tmp_path: Path) -> None:
    path = tmp_path / "whole.onnx"
    path.write_bytes(MODELS[name]())
    assert outcome(read, path) == ""
