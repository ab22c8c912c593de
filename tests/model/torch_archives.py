"""`.pt2` files for tests: made by PyTorch, and changed by hand afterwards."""

from __future__ import annotations

import functools
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

PROGRAM = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
SAMPLES = "data/sample_inputs/model.pt"


class Small(nn.Module):
    """A linear layer, a buffer, and a constant."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(5, 3)
        self.register_buffer("shift", torch.arange(3.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + self.shift * torch.tensor([1.0, 2.0, 3.0])


def write_program(path: Path, module: nn.Module, *inputs: object, dynamic: object = None) -> Path:
    program = torch.export.export(module, inputs, dynamic_shapes=dynamic)
    torch.export.save(program, path)
    return path


def write_small(path: Path, *, dynamic: bool = False) -> Path:
    path.write_bytes(_small(dynamic))
    return path


@functools.cache
def _small(dynamic: bool) -> bytes:
    shapes = ({0: torch.export.Dim("batch", min=1, max=64)},) if dynamic else None
    program = torch.export.export(Small(), (torch.ones(2, 5),), dynamic_shapes=shapes)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def change_record(path: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    """Rewrites one record; adds it if it isn't there."""
    with zipfile.ZipFile(path) as old:
        records = {info.filename: old.read(info.filename) for info in old.infolist()}
    root = next(iter(records)).split("/")[0]
    records[f"{root}/{name}"] = change(records.get(f"{root}/{name}", b""))
    with zipfile.ZipFile(path, "w") as new:
        for record, data in records.items():
            new.writestr(record, data)


def change_json(path: Path, name: str, change: Callable[[dict], object]) -> None:
    """Changes a JSON record in place."""

    def changed(data: bytes) -> bytes:
        document = json.loads(data)
        change(document)
        return json.dumps(document).encode()

    change_record(path, name, changed)


class Toucher:
    """What makes a file when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.proof,)


def pickled(proof: Path) -> bytes:
    return pickle.dumps(Toucher(proof))
