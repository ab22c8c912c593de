"""PyTorch programs as ONNX files: names, shapes, numbers, and what is refused."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from torch import nn  # noqa: E402
from torch.export import Dim  # noqa: E402
from torch_archives import (  # noqa: E402
    PROGRAM,
    Small,
    change_json,
    change_record,
    write_program,
    write_small,
)

from tunebank.errors import MissingExtraError, ModelError  # noqa: E402
from tunebank.model.torch_check import check_numbers  # noqa: E402
from tunebank.model.torch_file import export_onnx, save_program  # noqa: E402
from tunebank.model.torch_program import load_program  # noqa: E402


def exported(tmp_path: Path, module: nn.Module, *inputs: object, dynamic: object = None) -> Path:
    return export_onnx(
        write_program(tmp_path / "m.pt2", module, *inputs, dynamic=dynamic), tmp_path
    )


def run(path: Path, **inputs: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def shapes(values: object) -> dict[str, list[object]]:
    return {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in values
    }


def test_numbers(tmp_path: Path) -> None:
    path = export_onnx(write_small(tmp_path / "small.pt2"), tmp_path)
    assert path == tmp_path / "small.onnx"
    x = np.random.default_rng(0).standard_normal((2, 5)).astype(np.float32)
    (found,) = run(path, x=x)
    np.testing.assert_allclose(found, Small()(torch.tensor(x)).detach(), rtol=1e-5)


def test_dynamic_dimensions_are_named(tmp_path: Path) -> None:
    path = export_onnx(write_small(tmp_path / "m.pt2", dynamic=True), tmp_path)
    graph = onnx.load(str(path)).graph
    batch, width = shapes(graph.input)["x"]
    assert isinstance(batch, str) and width == 5
    assert shapes(graph.output) == {"output_0": [batch, 3]}
    assert run(path, x=np.ones((7, 5), np.float32))[0].shape == (7, 3)


class Nested(nn.Module):
    """Inputs and outputs within dictionaries and tuples, some no tensors."""

    def forward(self, batch, pair, scale=2.0, flag=None):
        total = batch["ids"][0].float() + batch["mask"]
        return {"sum": total * scale, "pair": (pair[0] + 1, None)}, total.sum(), 7


def test_nested_inputs_and_outputs_are_flattened(tmp_path: Path) -> None:
    batch = {"ids": [torch.ones(2, 3, dtype=torch.int64)], "mask": torch.ones(2, 3)}
    path = exported(tmp_path, Nested(), batch, (torch.ones(2), torch.ones(4)), 2.5)
    graph = onnx.load(str(path)).graph
    assert list(shapes(graph.input)) == ["batch_ids_0", "batch_mask", "pair_0", "pair_1"]
    assert shapes(graph.output) == {"output_0": [2, 3], "output_1": [2], "output_2": []}


class Scalars(nn.Module):
    """Scalar and integer inputs; integer and boolean outputs."""

    def forward(self, x, t, i):
        return x * t, i + 1, x.amax() - x.amin(), i > 3


def test_scalars_and_integers(tmp_path: Path) -> None:
    inputs = (torch.ones(2, 3), torch.tensor(2.0), torch.ones(3, dtype=torch.int32))
    path = exported(tmp_path, Scalars(), *inputs)
    assert shapes(onnx.load(str(path)).graph.input) == {"x": [2, 3], "t": [], "i": [3]}
    x = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    found = run(path, x=x, t=np.array(3, np.float32), i=np.array([1, 2, 3], np.int32))
    np.testing.assert_array_equal(found[0], 3 * x)
    np.testing.assert_array_equal(found[1], np.array([2, 3, 4], np.int32))
    assert found[2] == 5
    assert not found[3].any()


class Recurrent(nn.Module):
    """One bidirectional recurrent layer."""

    def __init__(self, cell: type[nn.RNNBase]) -> None:
        super().__init__()
        self.cell = cell(5, 7, bidirectional=True, batch_first=True)

    def forward(self, x):
        return self.cell(x)[0]


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU])
def test_recurrent_layers_stay_whole(cell: type[nn.RNNBase], tmp_path: Path) -> None:
    path = exported(
        tmp_path, Recurrent(cell), torch.randn(2, 6, 5), dynamic=({0: Dim("batch", max=8)},)
    )
    kinds = [node.op_type for node in onnx.load(str(path)).graph.node]
    assert kinds.count(cell.__name__) == 1
    assert run(path, x=np.ones((3, 6, 5), np.float32))[0].shape == (3, 6, 14)


def test_layers_of_transformers_and_images(tmp_path: Path) -> None:
    attention = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, activation="gelu")
    image = nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1), nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.PixelShuffle(2), nn.AdaptiveAvgPool2d(4), nn.Flatten(2), attention,
    ).eval()  # fmt: skip
    path = exported(tmp_path, image, torch.randn(1, 2, 4, 4))
    proto = onnx.load(str(path))
    assert not proto.functions
    assert all(node.domain in ("", "ai.onnx") for node in proto.graph.node)


def test_devices_become_the_cpu(tmp_path: Path) -> None:
    path = write_small(tmp_path / "m.pt2")

    def to_gpu(value: object) -> None:
        items = value.values() if isinstance(value, dict) else value
        for item in items:
            if isinstance(item, dict) and "device" in item:
                item["device"] = {"type": "cuda", "index": 0}
            if isinstance(item, (dict, list)):
                to_gpu(item)

    change_json(path, PROGRAM, to_gpu)
    assert run(export_onnx(path, tmp_path), x=np.ones((2, 5), np.float32))[0].shape == (2, 3)


class Counter(nn.Module):
    """Counts its runs."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x):
        self.count.add_(1)
        return x + self.count


class InPlace(nn.Module):
    """Changes its input."""

    def forward(self, x):
        return x.add_(1) * 2


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (Counter(), "count"),
        (InPlace(), "changes x "),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), "statistics"),
    ],
)
def test_programs_with_state_are_refused(module: nn.Module, said: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=said) as raised:
        exported(tmp_path, module.train(), torch.ones(2, 3, 4, 4))
    assert "eval()" in str(raised.value)


def test_a_changed_number_is_found(tmp_path: Path) -> None:
    source = write_small(tmp_path / "m.pt2")
    path = export_onnx(source, tmp_path)
    proto = onnx.load(str(path))
    weight = next(w for w in proto.graph.initializer if len(w.dims) == 2)
    changed = onnx.numpy_helper.to_array(weight).copy()
    changed[0, 0] += 0.5
    weight.CopyFrom(onnx.numpy_helper.from_array(changed, weight.name))
    onnx.save(proto, str(path))
    with pytest.raises(ModelError, match="changed the numbers: output_0"):
        check_numbers(source, load_program(source), path)


class Noisy(nn.Module):
    """Adds noise."""

    def forward(self, x):
        return x + torch.rand_like(x)


def test_random_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"random numbers \(aten.rand_like"):
        exported(tmp_path, Noisy(), torch.ones(2, 3))


def test_a_file_that_cant_run_is_refused(tmp_path: Path) -> None:
    """The exporter gives an LSTM's cell state the size of its projection."""
    with pytest.raises(ModelError, match="ONNX Runtime can't run"):
        exported(tmp_path, nn.LSTM(6, 5, proj_size=3).eval(), torch.randn(3, 2, 6))


def test_bfloat16_is_exported_unchecked(tmp_path: Path) -> None:
    module = nn.Conv2d(3, 4, 3).to(torch.bfloat16)
    with pytest.warns(UserWarning, match="unchecked"):
        exported(tmp_path, module, torch.ones(1, 3, 8, 8, dtype=torch.bfloat16))


def test_a_live_program(tmp_path: Path) -> None:
    program = torch.export.export(Small(), (torch.ones(2, 5),))
    save_program(program, tmp_path / "live.pt2")
    assert export_onnx(tmp_path / "live.pt2", tmp_path).name == "live.onnx"


def test_what_is_no_program(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"Small is no exported program.*torch.export.export"):
        save_program(Small(), tmp_path / "m.pt2")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("weights")


def cut_off(path: Path) -> None:
    write_small(path)
    path.write_bytes(path.read_bytes()[:-100])


def flipped(path: Path) -> None:
    write_small(path)
    with zipfile.ZipFile(path) as file:
        name = next(n for n in file.namelist() if n.endswith("weight_0"))
        start = file.getinfo(name).header_offset
    data = bytearray(path.read_bytes())
    data[start + 100] ^= 0xFF
    path.write_bytes(data)


def without_program(path: Path) -> None:
    write_small(path)
    change_record(path, PROGRAM, lambda _: b"{}")


def deep(path: Path) -> None:
    write_small(path)
    change_record(path, PROGRAM, lambda _: b"[" * 200_000)


def outside_record(path: Path) -> None:
    write_small(path)

    def change(config: dict) -> None:
        config["config"]["shift"]["tensor_meta"]["sizes"] = [{"as_int": 10**9}]

    change_json(path, "data/weights/model_weights_config.json", change)


def old_torch(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("serialized_exported_program.json", "{}")


def pickled_module(path: Path) -> None:
    torch.save(Small().state_dict(), path)


@pytest.mark.parametrize(
    "damage",
    [
        empty, text, cut_off, flipped, without_program, deep, outside_record, old_torch,
        pickled_module,
    ],
)  # fmt: skip
def test_wrong_and_damaged_files(damage, tmp_path: Path) -> None:
    path = tmp_path / "m.pt2"
    damage(path)
    with pytest.raises(ModelError) as raised:
        export_onnx(path, tmp_path)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        export_onnx(tmp_path / "none.pt2", tmp_path)


@pytest.mark.parametrize("missing", ["torch", "onnxscript"])
def test_missing_extra(missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_small(tmp_path / "m.pt2")
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtraError, match=rf"{missing}.*tunebank\[torch\]"):
        export_onnx(path, tmp_path)
