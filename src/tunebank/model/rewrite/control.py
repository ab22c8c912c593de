"""Control flow that is decided before the model runs: If, Loop and Scan.

    If(c, A, B)        →  A or B, where c is a constant; else both, and Where(c, a, b)
    Loop(n, true, v)   →  the body n times
    Scan(v, xs)        →  the body once for each entry of xs

A loop whose end depends on the data can't be compiled: its results have no fixed shapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from tunebank.errors import ModelError
from tunebank.model.rewrite.graph import Graph, attributes_of, described, subgraphs
from tunebank.model.rewrite.paste import paste_graph
from tunebank.model.rewrite.replacement import Replacement
from tunebank.model.rewrite.sequence import concat_many, split_many
from tunebank.model.rewrite.trips import loop_trips

MAX_NODES = 20_000
"""Nodes that unrolling one loop may give."""


def decide_if(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """The branch that a constant condition takes; else both branches and a choice."""
    attributes = attributes_of(node)
    condition = graph.constant(node.input[0])
    if condition is not None:
        branch = attributes["then_branch" if condition.item() else "else_branch"]
        assert isinstance(branch, onnx.GraphProto)
        for result, output in zip(paste_graph(branch, {}, graph, new), node.output, strict=True):
            if output:
                new.identity(result, output)
        return True
    return _choose(node, attributes, graph, new)


def _choose(
    node: onnx.NodeProto, attributes: dict[str, Any], graph: Graph, new: Replacement
) -> bool:
    """Both branches, and an elementwise choice between what they give."""
    branches = [attributes["then_branch"], attributes["else_branch"]]
    for results in zip(*(branch.output for branch in branches), strict=True):
        kinds = [_declared(value) for value in results]
        if kinds[0] != kinds[1]:
            raise ModelError(
                f"{described(node)}: the condition depends on the input, and the branches give "
                f"{kinds[0]} and {kinds[1]}; only results of one shape can be chosen between"
            )
    taken, other = (paste_graph(branch, {}, graph, new) for branch in branches)
    # A condition may have a dimension of extent 1; a choice must not add it to the results.
    condition = new.reshape(node.input[0], [])
    for yes, no, output in zip(taken, other, node.output, strict=True):
        if output:
            new.op("Where", condition, yes, no, out=output)
    return True


def _declared(value: onnx.ValueInfoProto) -> str:
    tensor = value.type.tensor_type
    dims = ", ".join(str(dim.dim_value or dim.dim_param or "?") for dim in tensor.shape.dim)
    kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
    return f"{kind} ({dims})" if value.type.HasField("tensor_type") else "no tensor"


def unroll_loop(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """Loop, where how often it runs is known.

    Raises:
        ModelError: it isn't known, or is more than is unrolled.
    """
    body = next(subgraphs(node))
    trips = loop_trips(node, body, graph)
    _check_size(node, body, trips)
    carried = list(node.input[2:])
    formal = [value.name for value in body.input]
    scans: list[list[str]] = [[] for _ in body.output[1 + len(carried) :]]
    for trip in range(trips):
        names = dict(zip(formal, [new.constant(trip, np.int64), new.constant(True)], strict=False))
        names.update(zip(formal[2:], carried, strict=True))
        results = paste_graph(body, names, graph, new)[1:]
        carried, entries = results[: len(carried)], results[len(carried) :]
        for scan, entry in zip(scans, entries, strict=True):
            scan.append(entry)
    for value, output in zip(carried, node.output, strict=False):
        if output:
            new.identity(value, output)
    for scan, output in zip(scans, node.output[len(carried) :], strict=False):
        if output and graph.uses(output):
            _stack(scan, 0, output, node, new)
    return True


@dataclass(frozen=True)
class _Scan:
    """A Scan node: how many states it carries, its axes and directions."""

    states: int
    input_axes: list[int]
    input_backwards: list[bool]
    output_axes: list[int]
    output_backwards: list[bool]


def unroll_scan(node: onnx.NodeProto, graph: Graph, new: Replacement) -> bool:
    """Scan, since version 9: before it had a dimension for the batch.

    Raises:
        ModelError: more entries than are unrolled.
    """
    if graph.opset < 9:
        return False
    body = next(subgraphs(node))
    scan = _scan(node, body)
    carried, scanned = list(node.input[: scan.states]), list(node.input[scan.states :])
    shapes = [graph.known_shape(name, node) for name in scanned]
    trips = shapes[0][scan.input_axes[0]]
    _check_size(node, body, trips)
    entries = [
        _entries(name, len(shape), axis, backwards, trips, new)
        for name, shape, axis, backwards in zip(
            scanned, shapes, scan.input_axes, scan.input_backwards, strict=True
        )
    ]
    stacks: list[list[str]] = [[] for _ in body.output[scan.states :]]
    for trip in range(trips):
        given = carried + [entry[trip] for entry in entries]
        names = {value.name: name for value, name in zip(body.input, given, strict=True)}
        results = paste_graph(body, names, graph, new)
        carried = results[: scan.states]
        for stack, result in zip(stacks, results[scan.states :], strict=True):
            stack.append(result)
    for value, output in zip(carried, node.output, strict=False):
        if output:
            new.identity(value, output)
    for index, output in enumerate(node.output[scan.states :]):
        if output and graph.uses(output):
            stack = stacks[index]
            ordered = stack[::-1] if scan.output_backwards[index] else stack
            _stack(ordered, scan.output_axes[index], output, node, new)
    return True


def _scan(node: onnx.NodeProto, body: onnx.GraphProto) -> _Scan:
    attributes = attributes_of(node)
    inputs = int(attributes["num_scan_inputs"])
    states = len(node.input) - inputs
    outputs = len(body.output) - states

    def listed(name: str, count: int) -> list[int]:
        return list[int](attributes.get(name) or [0] * count)

    return _Scan(
        states=states,
        input_axes=listed("scan_input_axes", inputs),
        input_backwards=[bool(value) for value in listed("scan_input_directions", inputs)],
        output_axes=listed("scan_output_axes", outputs),
        output_backwards=[bool(value) for value in listed("scan_output_directions", outputs)],
    )


def _entries(
    x: str, rank: int, axis: int, backwards: bool, trips: int, new: Replacement
) -> list[str]:
    """What each run of the body takes of a scanned input, its axis dropped."""
    axis %= rank
    if axis:
        x = new.transpose(x, [axis, *(other for other in range(rank) if other != axis)])
    entries = [new.squeeze(part, [0]) for part in split_many(new, x, trips)]
    return entries[::-1] if backwards else entries


def _stack(
    entries: list[str], axis: int, output: str, node: onnx.NodeProto, new: Replacement
) -> None:
    if not entries:
        raise ModelError(f"{described(node)}: it never runs, and {output!r} is empty; leave it out")
    concat_many(new, [new.unsqueeze(entry, [axis]) for entry in entries], axis, out=output)


def _check_size(node: onnx.NodeProto, body: onnx.GraphProto, trips: int) -> None:
    if trips * len(body.node) > MAX_NODES:
        raise ModelError(
            f"{described(node)}: it runs {trips} times a body of {len(body.node)} nodes, at most "
            f"{MAX_NODES} nodes are unrolled; give the model a shorter input"
        )
