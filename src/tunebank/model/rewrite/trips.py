"""How often a Loop runs, where that doesn't depend on the model's inputs.

A loop ends after its trip count, or when its condition says so. The condition may follow from
the number of the run and from carried values that start as constants, as the counter of a
`while` does. Then a loop of these alone is run, and its runs are counted.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime

from tunebank.errors import ModelError
from tunebank.model.rewrite.graph import Graph, described, outer_names, subgraphs

_ENDLESS = 1 << 15  # more than is unrolled

# Names in the small loop that counts; no exporter writes them.
_LIMIT, _RUN, _RUNS = "tunebank/limit", "tunebank/run", "tunebank/runs"


def loop_trips(node: onnx.NodeProto, body: onnx.GraphProto, graph: Graph) -> int:
    """The number of times that the loop runs.

    Raises:
        ModelError: it depends on the model's inputs.
    """
    count = graph.constant(node.input[0]) if node.input[0] else np.asarray(_ENDLESS)
    start = graph.constant(node.input[1]) if node.input[1] else np.asarray(True)
    if count is None or start is None:
        raise _undecided(node)
    if not start.item():
        return 0
    limit = max(int(count.item()), 0)
    if node.input[0] and _goes_on(body, graph):
        return limit
    trips = _counted(node, body, graph, limit)
    if trips is None:
        raise _undecided(node)
    return trips


def _undecided(node: onnx.NodeProto) -> ModelError:
    return ModelError(
        f"{described(node)}: how often it runs depends on the model's inputs, which can't be "
        "compiled; export the model without this loop, or with a fixed number of runs"
    )


def _goes_on(body: onnx.GraphProto, graph: Graph) -> bool:
    """Whether the body's condition is always true: a constant, or the one that it was given."""
    producers = {name: node for node in body.node for name in node.output}
    constants = {tensor.name: tensor for tensor in body.initializer}
    name = body.output[0].name
    while name in producers and producers[name].op_type == "Identity":
        name = producers[name].input[0]
    if name == body.input[1].name:
        return True
    if name in constants:
        return bool(onnx.numpy_helper.to_array(constants[name]).item())
    if name in producers and producers[name].op_type == "Constant":
        tensor = onnx.helper.get_node_attr_value(producers[name], "value")
        return bool(onnx.numpy_helper.to_array(tensor).item())
    outside = None if name in producers else graph.constant(name)
    return outside is not None and bool(outside.item())


def _counted(node: onnx.NodeProto, body: onnx.GraphProto, graph: Graph, limit: int) -> int | None:
    """Runs the part of the loop that its condition depends on; None if that isn't constant."""
    needed, carried = _slice(body)
    starts = [node.input[2 + index] for index in carried]
    constants = {*starts, *_from_outside(needed, body), *(name for name in node.input[1:2] if name)}
    if any(graph.constant(name) is None for name in constants):
        return None
    model = onnx.ModelProto(ir_version=graph.model.ir_version)
    model.opset_import.extend(graph.model.opset_import)
    model.graph.name = "count"
    model.graph.node.append(_small_loop(node, body, needed, carried))
    tensors = (graph.initializer(name) for name in sorted(constants))
    model.graph.initializer.extend(tensor for tensor in tensors if tensor is not None)
    bound = onnx.numpy_helper.from_array(np.asarray(limit, np.int64), _LIMIT)
    model.graph.initializer.append(bound)
    model.graph.output.append(onnx.ValueInfoProto(name=_RUNS))
    return _run_count(model)


def _from_outside(needed: list[onnx.NodeProto], body: onnx.GraphProto) -> set[str]:
    """What some nodes of a body take from around it."""
    own = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
    own.update(name for part in needed for name in part.output)
    taken = {name for part in needed for name in part.input if name}
    taken.update(n for part in needed for inner in subgraphs(part) for n in outer_names(inner))
    return taken - own


def _slice(body: onnx.GraphProto) -> tuple[list[onnx.NodeProto], list[int]]:
    """The nodes that the condition depends on, over all runs, and the carried values among it."""
    position = {value.name: index for index, value in enumerate(body.input[2:])}
    producers = {name: node for node in body.node for name in node.output}
    wanted, seen = [body.output[0].name], set()
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in position:
            wanted.append(body.output[1 + position[name]].name)
        elif name in producers:
            node = producers[name]
            wanted.extend(input_ for input_ in node.input if input_)
            wanted.extend(outer for inner in subgraphs(node) for outer in outer_names(inner))
    needed = [node for node in body.node if any(name in seen for name in node.output)]
    return needed, sorted(position[name] for name in seen if name in position)


def _small_loop(
    node: onnx.NodeProto, body: onnx.GraphProto, needed: list[onnx.NodeProto], carried: list[int]
) -> onnx.NodeProto:
    """The loop with the needed nodes alone, and one more result: an entry for each run."""
    small = onnx.GraphProto(name="body")
    small.node.extend(needed)
    small.initializer.extend(body.initializer)
    small.input.extend(body.input[:2])
    small.input.extend(body.input[2 + index] for index in carried)
    small.output.append(body.output[0])
    small.output.extend(body.output[1 + index] for index in carried)
    small.node.append(onnx.helper.make_node("Identity", [body.input[0].name], [_RUN]))
    run = onnx.helper.make_tensor_value_info(_RUN, onnx.TensorProto.INT64, [])
    small.output.append(run)
    inputs = [_LIMIT, node.input[1], *(node.input[2 + index] for index in carried)]
    outputs = [f"count_{index}" for index in carried]
    return onnx.helper.make_node("Loop", inputs, [*outputs, _RUNS], "count", body=small)


def _run_count(model: onnx.ModelProto) -> int | None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        (runs,) = session.run(None, {})
    except Exception:  # ONNX Runtime's exceptions share no base class
        return None
    return len(runs)
