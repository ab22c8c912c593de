"""A model with constant weights made one with random weights.

The networks under `backend/test/data/light` of the `onnx` package keep their files small by making
every weight of one kind the same constant. Their outputs don't follow their inputs, so that no
comparison of numbers means anything. Here each such weight is drawn anew; the structure, which
alone matters to speed, stays.

    python -m tunebank.lab.redraw light_resnet50.onnx resnet50.onnx
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import helper, numpy_helper

_SEED = 0
_LOGIT_SCALE = 2.0
"""Standard deviation of what goes into a last softmax: it should not saturate."""

_Array = npt.NDArray[np.float32]
_Use = tuple[onnx.NodeProto, int]


def redraw_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with each weight that a `ConstantOfShape` makes drawn at random.

    Convolutions and dense layers get He's initialisation (arXiv 1502.01852), batch norms a scale
    and a variance near 1, biases small values.
    """
    model = onnx.ModelProto.FromString(model.SerializeToString())
    generator = np.random.default_rng(_SEED)
    graph = model.graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    uses = {name: (node, i) for node in graph.node for i, name in enumerate(node.input)}
    made = [n for n in graph.node if n.op_type == "ConstantOfShape" and n.input[0] in values]
    drawn = {
        node.output[0]: _draw(uses[node.output[0]], tuple(values[node.input[0]]), generator)
        for node in made
        if node.output[0] in uses
    }
    for node in made:
        if node.output[0] in drawn:
            graph.node.remove(node)
    graph.initializer.extend(numpy_helper.from_array(w, name) for name, w in drawn.items())
    _calm_softmax(model)
    return model


def _draw(use: _Use, shape: tuple[int, ...], generator: np.random.Generator) -> _Array:
    node, position = use
    if node.op_type == "BatchNormalization" and position in (1, 4):
        return generator.uniform(0.9, 1.1, shape).astype(np.float32)
    if len(shape) < 2:
        return generator.uniform(-0.1, 0.1, shape).astype(np.float32)
    deviation = np.sqrt(2.0 / np.prod(shape[1:]), dtype=np.float32)
    return np.asarray(deviation * generator.standard_normal(shape, np.float32))


def _calm_softmax(model: onnx.ModelProto) -> None:
    """Scales the last weights so that a last softmax does not saturate."""
    last = model.graph.node[-1]
    if last.op_type != "Softmax":
        return
    scale = _LOGIT_SCALE / max(_deviation(model, last.input[0]), 1e-30)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    producer = next(n for n in model.graph.node if last.input[0] in n.output)
    for name in _weights_before(model, producer, set(weights)):
        scaled = np.asarray(numpy_helper.to_array(weights[name]) * scale, np.float32)
        weights[name].CopyFrom(numpy_helper.from_array(scaled, name))


def _weights_before(
    model: onnx.ModelProto, node: onnx.NodeProto, weights: set[str]
) -> Iterator[str]:
    """The weights of the nearest layer at or before a node."""
    own = [name for name in node.input if name in weights]
    if node.op_type in ("Gemm", "MatMul", "Conv") and own:
        yield from own
        return
    before = next((n for n in model.graph.node if node.input[0] in n.output), None)
    if before is not None:
        yield from _weights_before(model, before, weights)


def _deviation(model: onnx.ModelProto, tensor: str) -> float:
    """Standard deviation of a tensor on one random input, by ONNX Runtime."""
    probe = onnx.ModelProto.FromString(model.SerializeToString())
    del probe.graph.output[:]
    probe.graph.output.append(helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        probe.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    weights = {weight.name for weight in probe.graph.initializer}
    generator = np.random.default_rng(_SEED)
    feed = {
        spec.name: generator.standard_normal(spec.shape).astype(np.float32)
        for spec in session.get_inputs()
        if spec.name not in weights
    }
    return float(np.std(session.run(None, feed)[0]))


if __name__ == "__main__":
    source, target = (Path(argument) for argument in sys.argv[1:])
    target.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(redraw_weights(onnx.load(str(source))), str(target))
