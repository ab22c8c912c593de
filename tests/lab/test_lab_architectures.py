"""The lab's networks: all there, and their outputs follow their inputs."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from tunebank.errors import MissingExtraError, TunebankError, UsageError
from tunebank.lab.architectures import (
    FAMILIES,
    Entry,
    build_file,
    catalogue,
    find_entries,
    model_file,
)
from tunebank.lab.architectures.files import load_network
from tunebank.lab.architectures.light import write_light

pytestmark = pytest.mark.filterwarnings("ignore")  # PyTorch warns its own developers

_TABLE = 100  # the smallest table that integers look something up in


def outputs_of(path: Path, seed: int) -> dict[str, np.ndarray]:
    """What a file gives for random inputs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(seed)
    old_files_list_weights = {weight.name for weight in session.get_overridable_initializers()}
    feed = {}
    for spec in session.get_inputs():
        if spec.name in old_files_list_weights:
            continue
        kind = spec.type.removeprefix("tensor(").removesuffix(")")
        values = rng.standard_normal(spec.shape)
        if kind.startswith("int"):
            values = rng.integers(0, _TABLE, spec.shape)
        dtype = {"float": "float32", "double": "float64"}.get(kind, kind)
        feed[spec.name] = np.asarray(values > 0 if kind == "bool" else values, dtype)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, feed), strict=True))


def check_follows(path: Path) -> None:
    one, other = outputs_of(path, 1), outputs_of(path, 2)
    for name, array in one.items():
        if array.dtype.kind != "f":
            continue
        scale = float(np.abs(array.astype(np.float64)).max())
        assert 1e-3 < scale < 1e4, name
        assert np.abs(array - other[name]).max() > 1e-3 * scale, name


def test_names() -> None:
    names = [entry.name for entry in catalogue()]
    assert len(set(names)) == len(names) >= 40
    assert find_entries(["gpt2", "resnet18"]) == tuple(
        entry for name in ("gpt2", "resnet18") for entry in catalogue() if entry.name == name
    )
    with pytest.raises(UsageError, match=r"'resnet'; there are: resnet18"):
        find_entries(["resnet"])


@pytest.mark.parametrize("family", FAMILIES)
def test_families_define_what_the_catalogue_lists(family: str) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    module = importlib.import_module(f"tunebank.lab.architectures.{family}")
    assert tuple(module.NETWORKS) == FAMILIES[family]


def test_the_catalogue_needs_no_torch() -> None:
    program = (
        "import sys; from tunebank.lab.architectures import catalogue; catalogue()\n"
        "assert not {'torch', 'onnx', 'tvm', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("name", ["conv_zoo", "multi_io", "lstm_classifier", "super_resolution"])
def test_files(name: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (entry,) = find_entries([name])
    path = tmp_path / f"{name}.onnx"
    build_file(entry, "onnx", path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    network = load_network(entry)
    proto = onnx.load(str(path))
    assert [value.name for value in proto.graph.input] == list(network.inputs)
    assert [value.name for value in proto.graph.output] == list(network.outputs)
    assert proto.opset_import[0].version == 17
    check_follows(path)


def test_a_program_is_the_same_network(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    (entry,) = find_entries(["conv_zoo"])
    build_file(entry, "torch", tmp_path / "m.pt2")
    network = load_network(entry)
    program = torch.export.load(tmp_path / "m.pt2").module()
    inputs = tuple(network.inputs.values())
    with torch.no_grad():
        pairs = zip(program(*inputs), network.module(*inputs), strict=True)
    assert all(torch.allclose(one, other, rtol=1e-4, atol=1e-4) for one, other in pairs)


def test_quantised(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    entry = Entry("small_int8", "dense_prediction", "super_resolution", "int8", ("onnx",))
    build_file(entry, "onnx", tmp_path / "m.onnx")
    proto = onnx.load(str(tmp_path / "m.onnx"))
    kinds = [node.op_type for node in proto.graph.node]
    assert kinds.count("QuantizeLinear") >= 4
    assert any(weight.data_type == onnx.TensorProto.INT8 for weight in proto.graph.initializer)
    check_follows(tmp_path / "m.onnx")


def test_half_precision(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    entry = Entry("multi_io_fp16", "odd_ones", "multi_io", "float16")
    inputs = load_network(entry).inputs
    assert inputs["features"].dtype == torch.float16
    assert inputs["ids"].dtype == torch.int64
    build_file(entry, "onnx", tmp_path / "m.onnx")
    assert outputs_of(tmp_path / "m.onnx", 0)["scores"].dtype == np.float16


def test_light_networks_follow_their_inputs(tmp_path: Path) -> None:
    write_light("light_shufflenet", tmp_path / "m.onnx")
    check_follows(tmp_path / "m.onnx")


def test_a_file_is_built_once(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (entry,) = find_entries(["super_resolution"])
    path = model_file(entry, "onnx", tmp_path)
    assert path == tmp_path / "onnx" / "super_resolution.onnx"
    path.write_bytes(b"kept")
    assert model_file(entry, "onnx", tmp_path).read_bytes() == b"kept"


def test_what_cant_be_built(tmp_path: Path) -> None:
    with pytest.raises(TunebankError, match=r"nameless: can't be exported for onnx: no network"):
        model_file(Entry("nameless", "odd_ones", "nameless"), "onnx", tmp_path)


def test_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    (entry,) = find_entries(["conv_zoo"])
    with pytest.raises(MissingExtraError, match=r"torch; run `pip install 'tunebank\[lab\]'`"):
        load_network(entry)
