"""The light networks of the `onnx` package, with weights and batch norms that mean something.

Their weights are drawn anew (`lab/redraw.py`). A batch norm with statistics that don't fit its
input lets the signal die over a hundred layers; so these are taken from the network itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from tunebank.lab.redraw import redraw_weights

_SEED = 1
_LOGIT_DEVIATION = 2.0


def write_light(name: str, path: Path) -> None:
    """Writes the network of that name, such as `light_resnet50`."""
    import onnx.backend.test

    folder = Path(onnx.backend.test.__file__).parent / "data" / "light"
    onnx.save(calibrated(redraw_weights(onnx.load(str(folder / f"{name}.onnx")))), str(path))


def calibrated(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with batch norms that know the statistics of their inputs.

    A last softmax gets logits that vary by about 2, so that it does not saturate.
    """
    norms = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    if not norms:
        return model
    wanted = [name for node in norms for name in (_mean(node), _variance(node))]
    last = model.graph.node[-1]
    calm = last.op_type == "Softmax"
    found = _run(_probe(model), [*wanted, last.input[0]] if calm else wanted)
    values = dict(zip(wanted, found, strict=False))
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in norms:
        for role, name in ((3, _mean(node)), (4, _variance(node))):
            fitted = np.asarray(values[name], np.float32)
            weights[node.input[role]].CopyFrom(numpy_helper.from_array(fitted, node.input[role]))
    if calm:
        _scale_logits(model, weights, _LOGIT_DEVIATION / float(np.std(found[-1])))
    return model


def _scale_logits(
    model: onnx.ModelProto, weights: dict[str, onnx.TensorProto], factor: float
) -> None:
    dense = next(node for node in reversed(model.graph.node) if node.op_type == "Gemm")
    for name in dense.input[1:]:
        scaled = np.asarray(numpy_helper.to_array(weights[name]) * factor, np.float32)
        weights[name].CopyFrom(numpy_helper.from_array(scaled, name))


def _probe(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with each batch norm by its definition, over the batch that it is given."""
    probe = onnx.ModelProto.FromString(model.SerializeToString())
    nodes: list[onnx.NodeProto] = []
    for node in probe.graph.node:
        nodes.extend(_normalise(node) if node.op_type == "BatchNormalization" else [node])
    del probe.graph.node[:]
    probe.graph.node.extend(nodes)
    shape = numpy_helper.from_array(np.array([1, -1, 1, 1], np.int64), "tunebank_channels")
    weights = {tensor.name for tensor in probe.graph.initializer}  # old files list them as inputs
    inputs = [value for value in probe.graph.input if value.name not in weights]
    del probe.graph.input[:]
    probe.graph.input.extend(inputs)
    probe.ir_version = max(probe.ir_version, 4)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in probe.graph.initializer if tensor.name in used]
    del probe.graph.initializer[:]
    probe.graph.initializer.extend([*kept, shape])
    return probe


def _normalise(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """(x - mean) / deviation * scale + bias, with mean and variance as values of their own."""
    x, scale, bias = node.input[:3]
    prefix = f"{node.output[0]}_probe"
    epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
    centred, spread, shaped = f"{prefix}_c", f"{prefix}_v", f"{prefix}_"
    axes = [0, 2, 3]
    yield helper.make_node("ReduceMean", [x], [f"{prefix}_m"], axes=axes, keepdims=1)
    yield helper.make_node("Sub", [x, f"{prefix}_m"], [centred])
    yield helper.make_node("Mul", [centred, centred], [f"{prefix}_q"])
    yield helper.make_node("ReduceMean", [f"{prefix}_q"], [spread], axes=axes, keepdims=1)
    value = numpy_helper.from_array(np.array(epsilon, np.float32))
    yield helper.make_node("Constant", [], [f"{prefix}_e"], value=value)
    yield helper.make_node("Add", [spread, f"{prefix}_e"], [f"{prefix}_s"])
    yield helper.make_node("Sqrt", [f"{prefix}_s"], [f"{prefix}_d"])
    yield helper.make_node("Div", [centred, f"{prefix}_d"], [f"{prefix}_n"])
    for name in (scale, bias):
        yield helper.make_node("Reshape", [name, "tunebank_channels"], [shaped + name])
    yield helper.make_node("Mul", [f"{prefix}_n", shaped + scale], [f"{prefix}_t"])
    yield helper.make_node("Add", [f"{prefix}_t", shaped + bias], [node.output[0]])
    yield helper.make_node("Squeeze", [f"{prefix}_m"], [_mean(node)], axes=axes)
    yield helper.make_node("Squeeze", [spread], [_variance(node)], axes=axes)


def _mean(node: onnx.NodeProto) -> str:
    return f"{node.output[0]}_probe_mean"


def _variance(node: onnx.NodeProto) -> str:
    return f"{node.output[0]}_probe_variance"


def _run(model: onnx.ModelProto, outputs: list[str]) -> list[np.ndarray]:
    """Values of a graph on one random input, by ONNX Runtime."""
    del model.graph.output[:]
    model.graph.output.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    generator = np.random.default_rng(_SEED)
    feed = {
        spec.name: generator.standard_normal(spec.shape).astype(np.float32)
        for spec in session.get_inputs()
    }
    return list(session.run(outputs, feed))
