"""PyTorch as a contestant: a network of the catalogue, eager or by `torch.compile`."""

from __future__ import annotations

from typing import Any

import numpy as np

from tunebank.lab.architectures import find_entries
from tunebank.lab.architectures.files import load_network
from tunebank.runtime.bench import Contestant, Feed


def torch_contestant(name: str, feed: Feed, *, threads: int, compiled: bool) -> Contestant:
    """PyTorch: eager, or by `torch.compile` with its defaults.

    Raises:
        UsageError: no network of the catalogue.
        MissingExtraError: PyTorch is not installed.
        Exception: whatever `torch.compile` raises.
    """
    (entry,) = find_entries([name])
    network = load_network(entry)
    import torch

    torch.set_num_threads(threads)
    module = torch.compile(network.module) if compiled else network.module
    tensors = [torch.from_numpy(np.array(feed[name])) for name in network.inputs]
    named = dict(zip(network.inputs, tensors, strict=True)) if network.by_keyword else {}

    def run() -> list[np.ndarray[Any, Any]]:
        with torch.inference_mode():
            results = module(**named) if named else module(*tensors)
        results = [results] if isinstance(results, torch.Tensor) else list(results)
        return [result.numpy() for result in results]

    run()  # compiles
    return run
