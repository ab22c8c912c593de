"""Small ONNX models, and what ONNX Runtime makes of them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from tunebank import _tvm
from tunebank._tvm.onnx_frontend import repair_importer
from tunebank.model.rewrite import rewrite

Arrays = Mapping[str, np.ndarray]


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Arrays,
    outputs: Sequence[str],
    weights: Arrays | None = None,
    *,
    opset: int = 17,
) -> onnx.ModelProto:
    """A model of these nodes, its input types taken from example inputs."""
    graph = helper.make_graph(
        list(nodes),
        "case",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
            )
            for name, value in inputs.items()
        ],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(np.asarray(v), name) for name, v in (weights or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8 if opset < 19 else 10)


def run(model: onnx.ModelProto, inputs: Arrays) -> list[np.ndarray]:
    """What ONNX Runtime gives without optimisations."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, dict(inputs))


def operators(model: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in model.graph.node}


def check(
    model: onnx.ModelProto, inputs: Arrays, *, rtol: float = 1e-4, atol: float = 1e-5
) -> onnx.ModelProto:
    """Asserts that the rewritten model gives what the model gives; returns the rewritten one."""
    expected = run(model, inputs)
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    changed = rewrite(changed)
    got = run(changed, inputs)
    for value, reference in zip(got, expected, strict=True):
        assert value.dtype == reference.dtype
        assert value.shape == reference.shape
        np.testing.assert_allclose(value, reference, rtol=rtol, atol=atol)
    return changed


def compiled(model, inputs):
    """What TVM's program gives for a rewritten model."""
    _tvm.prepare(threads=1)
    import tvm
    from tvm import relax
    from tvm.relax.frontend.onnx import from_onnx

    repair_importer()
    with warnings.catch_warnings(), _tvm.without_warnings():
        warnings.simplefilter("ignore")
        module = from_onnx(model, keep_params_in_input=False)
        program = tvm.compile(relax.transform.LegalizeOps()(module), tvm.target.Target("llvm"))
        machine = relax.VirtualMachine(program, tvm.cpu())
        tensors = [tvm.runtime.tensor(inputs[value.name]) for value in model.graph.input]
        results = machine["main"](*tensors)
    return [results.numpy()] if hasattr(results, "numpy") else [part.numpy() for part in results]
