"""Small models, and ways to damage them: bytes of the file, and the meaning of the graph."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from networks import small_network

Damage = Callable[[onnx.ModelProto, random.Random], None]


def _model(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], **io: object) -> bytes:
    inputs, outputs = io["inputs"], io["outputs"]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(*one) for one in inputs],  # type: ignore[attr-defined]
        [helper.make_tensor_value_info(*one) for one in outputs],  # type: ignore[attr-defined]
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def convolutional() -> bytes:
    return small_network(repeated=1).SerializeToString()


def attention() -> bytes:
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"], name="embed"),
        helper.make_node("MatMul", ["e", "w"], ["q"], name="q"),
        helper.make_node("Transpose", ["e"], ["t"], perm=[0, 2, 1], name="t"),
        helper.make_node("MatMul", ["q", "t"], ["s"], name="s"),
        helper.make_node("Softmax", ["s"], ["p"], axis=-1, name="p"),
        helper.make_node("MatMul", ["p", "e"], ["o"], name="o"),
        helper.make_node("Reshape", ["o", "shape"], ["y"], name="flat"),
    ]
    weights = {
        "table": rng.standard_normal((50, 16)).astype(np.float32),
        "w": rng.standard_normal((16, 16)).astype(np.float32),
        "shape": np.array([1, -1], np.int64),
    }
    inputs = [("ids", TensorProto.INT64, [1, 8])]
    outputs = [("y", TensorProto.FLOAT, [1, 128])]
    return _model(nodes, weights, inputs=inputs, outputs=outputs)


def recurrent() -> bytes:
    rng = np.random.default_rng(1)
    nodes = [
        helper.make_node("LSTM", ["x", "w", "r", "b"], ["y", "h"], hidden_size=4, name="lstm"),
        helper.make_node("Squeeze", ["h", "axes"], ["z"], name="squeeze"),
    ]
    weights = {
        "w": rng.standard_normal((1, 16, 3)).astype(np.float32),
        "r": rng.standard_normal((1, 16, 4)).astype(np.float32),
        "b": rng.standard_normal((1, 32)).astype(np.float32),
        "axes": np.array([0], np.int64),
    }
    inputs = [("x", TensorProto.FLOAT, [5, 1, 3])]
    outputs = [("z", TensorProto.FLOAT, [1, 4])]
    return _model(nodes, weights, inputs=inputs, outputs=outputs)


def quantised() -> bytes:
    rng = np.random.default_rng(2)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], name="q"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"], name="d"),
        helper.make_node("DequantizeLinear", ["w", "scales", "zeros"], ["v"], axis=0, name="v"),
        helper.make_node("Conv", ["d", "v"], ["y"], kernel_shape=[3, 3], name="conv"),
    ]
    weights = {
        "scale": np.array(0.05, np.float32),
        "zero": np.array(3, np.int8),
        "scales": np.full(8, 0.01, np.float32),
        "zeros": np.zeros(8, np.int8),
        "w": rng.integers(-100, 100, (8, 4, 3, 3)).astype(np.int8),
    }
    inputs = [("x", TensorProto.FLOAT, [1, 4, 8, 8])]
    outputs = [("y", TensorProto.FLOAT, [1, 8, 6, 6])]
    return _model(nodes, weights, inputs=inputs, outputs=outputs)


MODELS = {
    "convolutional": convolutional,
    "attention": attention,
    "recurrent": recurrent,
    "quantised": quantised,
}


# -- damage to bytes


def flip(data: bytes, rng: random.Random) -> bytes:
    """A few bytes changed."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def cut(data: bytes, rng: random.Random) -> bytes:
    """The end missing."""
    return data[: rng.randrange(len(data))]


def shift(data: bytes, rng: random.Random) -> bytes:
    """A piece put in or taken out, so that all that follows is out of place."""
    place, size = rng.randrange(len(data)), rng.randint(1, 16)
    if rng.random() < 0.5:
        return data[:place] + data[place + size :]
    return data[:place] + rng.randbytes(size) + data[place:]


BYTES = {"flip": flip, "cut": cut, "shift": shift}


# -- damage to meaning


def _node(model: onnx.ModelProto, rng: random.Random) -> onnx.NodeProto:
    return rng.choice(list(model.graph.node))


def unknown_operand(model: onnx.ModelProto, rng: random.Random) -> None:
    node = _node(model, rng)
    if node.input:
        node.input[rng.randrange(len(node.input))] = "nowhere"


def missing_operand(model: onnx.ModelProto, rng: random.Random) -> None:
    node = _node(model, rng)
    if node.input:
        del node.input[rng.randrange(len(node.input))]


def cycle(model: onnx.ModelProto, rng: random.Random) -> None:
    first, last = model.graph.node[0], model.graph.node[-1]
    first.input[rng.randrange(len(first.input))] = last.output[0]


def two_of_one_name(model: onnx.ModelProto, rng: random.Random) -> None:
    one, other = _node(model, rng), _node(model, rng)
    other.output[0] = one.output[0]


def other_operator(model: onnx.ModelProto, rng: random.Random) -> None:
    _node(model, rng).op_type = rng.choice(
        ["Conv", "Gemm", "LSTM", "Loop", "If", "Einsum", "TopK", "Resize", "Pad", "", "Nonsense"]
    )


def odd_attribute(model: onnx.ModelProto, rng: random.Random) -> None:
    node = _node(model, rng)
    values = [-1, 0, 2**31, -(2**63), 2**62, [0, 0], [-1] * 4, [10**6] * 9, 0.5, "text", []]
    names = [attribute.name for attribute in node.attribute] or ["axis", "group", "pads", "perm"]
    name = rng.choice([*names, "strides", "dilations", "group", "axis", "hidden_size", "to"])
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)
    value = rng.choice(values)
    kind = onnx.AttributeProto.INTS if value == [] else None
    node.attribute.append(helper.make_attribute(name, value, attr_type=kind))


def odd_weight_shape(model: onnx.ModelProto, rng: random.Random) -> None:
    tensor = rng.choice(list(model.graph.initializer))
    del tensor.dims[:]
    tensor.dims.extend(rng.choice([[], [0], [-1, 2], [2**31, 2**31], [3, 5, 7], [1] * 9]))


def odd_weight_type(model: onnx.ModelProto, rng: random.Random) -> None:
    tensor = rng.choice(list(model.graph.initializer))
    tensor.data_type = rng.choice([0, 6, 7, 8, 11, 14, 16, 17, 23, 999])


def lost_content(model: onnx.ModelProto, rng: random.Random) -> None:
    tensor = rng.choice(list(model.graph.initializer))
    tensor.raw_data = tensor.raw_data[: rng.randrange(len(tensor.raw_data))]


def odd_input(model: onnx.ModelProto, rng: random.Random) -> None:
    tensor = model.graph.input[0].type.tensor_type
    if rng.random() < 0.3:
        tensor.elem_type = rng.choice([0, 8, 12, 14, 77])
        return
    dim = rng.choice(list(tensor.shape.dim))
    dim.dim_value = rng.choice([0, -1, 1, 3, 10**5, 2**31 - 1, 2**40, -(2**62)])


def odd_version(model: onnx.ModelProto, rng: random.Random) -> None:
    if rng.random() < 0.5:
        model.ir_version = rng.choice([0, 1, -5, 99, 2**40])
    else:
        model.opset_import[0].version = rng.choice([0, 1, 6, -3, 9999])


def lost_part(model: onnx.ModelProto, rng: random.Random) -> None:
    field = rng.choice(["node", "input", "output", "initializer"])
    values = getattr(model.graph, field)
    del values[rng.randrange(len(values))]


MEANING: dict[str, Damage] = {
    damage.__name__: damage
    for damage in (
        unknown_operand,
        missing_operand,
        cycle,
        two_of_one_name,
        other_operator,
        odd_attribute,
        odd_weight_shape,
        odd_weight_type,
        lost_content,
        odd_input,
        odd_version,
        lost_part,
    )
}
