"""The networks as files, each built once, in a process of its own.

python -m tunebank.lab.architectures.files resnet18 onnx resnet18.onnx
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from tunebank.errors import MissingExtraError, TunebankError
from tunebank.lab.architectures.catalogue import FORMATS, Entry, find_entries

if TYPE_CHECKING:
    from tunebank.lab.architectures.network import Network

_OPSET = 17
"""Of most files that people have."""
_BUILD_TIMEOUT_S = 1200.0
_LARGEST_ONE_FILE = 2**31 - 2**20  # protobuf holds 2 GiB


def file_path(entry: Entry, reader: str, cache: Path) -> Path:
    """Where the file of a network for a reader is, or will be."""
    return cache / reader / f"{entry.name}{FORMATS[reader]}"


def model_file(entry: Entry, reader: str, cache: Path) -> Path:
    """The file of a network for a reader, built if it isn't there.

    Raises:
        MissingExtraError: torch or transformers is not installed.
        TunebankError: it can't be exported; the message says why.
    """
    path = file_path(entry, reader, cache)
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", __name__, entry.name, reader, str(path)]
    try:
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, timeout=_BUILD_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise TunebankError(
            f"{entry.name}: no {reader} file within {error.timeout:.0f} s"
        ) from None
    if done.returncode == MissingExtraError.exit_code:
        raise MissingExtraError(done.stderr.strip().splitlines()[-1])
    if done.returncode != 0 or not path.exists():
        last = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise TunebankError(f"{entry.name}: can't be exported for {reader}: {last[:300]}")
    return path


def build_file(entry: Entry, reader: str, path: Path) -> None:
    """Writes the file of a network; whoever looks at the path sees it whole or not at all.

    Raises:
        MissingExtraError: torch or transformers is not installed.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".building-") as folder:
        made = Path(folder) / path.name
        if entry.family == "light":
            from tunebank.lab.architectures.light import write_light

            write_light(entry.name, made)
        elif entry.dtype == "int8":
            _write_quantised(entry, made)
        else:
            _write_exported(entry, reader, made)
        for piece in sorted(made.parent.iterdir(), key=lambda p: p == made):
            piece.rename(path.parent / piece.name)


def load_network(entry: Entry) -> Network:
    """The network itself.

    Raises:
        MissingExtraError: torch or transformers is not installed.
    """
    try:
        import torch

        family = importlib.import_module(f"tunebank.lab.architectures.{entry.family}")
    except ImportError as error:
        raise MissingExtraError(
            f"the lab's networks need {error.name}; run `pip install 'tunebank[lab]'`"
        ) from error
    network: Network = family.NETWORKS[entry.base]()
    return network if entry.dtype == "float32" else network.to(getattr(torch, entry.dtype))


def _write_exported(entry: Entry, reader: str, path: Path) -> None:
    network = load_network(entry)
    if reader == "torch":
        _write_program(network, path)
        return
    try:
        _write_onnx(network, path)
    except Exception as error:
        print(f"{entry.name}: the old exporter fails: {error}", file=sys.stderr)  # noqa: T201
        _write_onnx_anew(network, path)


def _write_program(network: Network, path: Path) -> None:
    import torch

    with torch.no_grad():
        if network.by_keyword:  # so that the program's inputs are called by their names
            program = torch.export.export(network.module, (), dict(network.inputs))
        else:
            program = torch.export.export(network.module, tuple(network.inputs.values()))
    torch.export.save(program, path)


def _write_onnx(network: Network, path: Path) -> None:
    """By way of TorchScript: what most files in the wild were made with."""
    import torch

    with torch.no_grad():
        torch.onnx.export(
            network.module,
            tuple(network.inputs.values()),
            str(path),
            input_names=list(network.inputs),
            output_names=list(network.outputs),
            opset_version=_OPSET,
            dynamo=False,
        )


def _write_onnx_anew(network: Network, path: Path) -> None:
    """By way of `torch.export`, where TorchScript can't."""
    import torch

    with torch.no_grad():
        torch.onnx.export(
            network.module,
            tuple(network.inputs.values()),
            str(path),
            input_names=list(network.inputs),
            output_names=list(network.outputs),
            dynamo=True,
            external_data=False,
        )


def _write_quantised(entry: Entry, path: Path) -> None:
    from tunebank.lab.architectures.quantised import quantise

    (base,) = find_entries([entry.base])
    network = load_network(base)
    with tempfile.TemporaryDirectory(prefix="tunebank-") as folder:
        plain = Path(folder) / "float32.onnx"
        _write_onnx(network, plain)
        inputs = {name: tensor.numpy() for name, tensor in network.inputs.items()}
        quantise(plain, inputs, path)


def main(arguments: list[str]) -> int:
    """Builds one file; returns the exit code."""
    name, reader, target = arguments
    warnings.simplefilter("ignore")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        (entry,) = find_entries([name])
        build_file(entry, reader, Path(target).absolute())
    except TunebankError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
