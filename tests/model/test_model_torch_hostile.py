"""`.pt2` files that would run code: none of it runs."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from torch_archives import (  # noqa: E402
    CONSTANTS,
    PROGRAM,
    SAMPLES,
    WEIGHTS,
    Toucher,
    change_json,
    change_record,
    pickled,
    write_small,
)

from tunebank.errors import ModelError  # noqa: E402
from tunebank.model.torch_file import export_onnx  # noqa: E402

Attack = Callable[[Path, Path], None]


def saved(proof: Path) -> bytes:
    """As `torch.save` writes it."""
    buffer = io.BytesIO()
    torch.save((Toucher(proof),), buffer)
    return buffer.getvalue()


def pickled_weight(path: Path, proof: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        config["config"]["shift"]["use_pickle"] = True
        config["config"]["shift"]["path_name"] = "weight_9"

    change_json(path, WEIGHTS, change)
    change_record(path, "data/weights/weight_9", lambda _: saved(proof))


def opaque_constant(path: Path, proof: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        (entry,) = config["config"].values()
        entry.update(path_name="opaque_obj_0", use_pickle=True)

    change_json(path, CONSTANTS, change)
    change_record(path, "data/constants/opaque_obj_0", lambda _: pickled(proof))


def sample_inputs(path: Path, proof: Path) -> None:
    change_record(path, SAMPLES, lambda _: saved(proof))


def first_node(program: dict[str, Any]) -> dict[str, Any]:
    node: dict[str, Any] = program["graph_module"]["graph"]["nodes"][0]
    return node


def calls_the_shell(path: Path, proof: Path) -> None:
    def change(program: dict[str, Any]) -> None:
        node = first_node(program)
        node["target"] = "torch.os.system"
        node["inputs"] = [{"name": "", "arg": {"as_string": f"touch {proof}"}, "kind": 1}]

    change_json(path, PROGRAM, change)


def shape_expression(path: Path, proof: Path) -> None:
    text = f"__import__('pathlib').Path({str(proof)!r}).touch() or 2"

    def change(program: dict[str, Any]) -> None:
        sizes = program["graph_module"]["graph"]["tensor_values"]["x"]["sizes"]
        sizes[0] = {"as_expr": {"expr_str": text, "hint": {"as_int": 2}}}

    change_json(path, PROGRAM, change)


def name_of_an_input(path: Path, proof: Path) -> None:
    """Graphs become Python source: this name is a default value that makes a file."""
    name = f"x=__import__('pathlib').Path({str(proof)!r}).touch()"

    def change(program: dict[str, Any]) -> None:
        rename(program["graph_module"], "x", name)

    change_json(path, PROGRAM, change)


def rename(value: Any, old: str, new: str) -> None:
    """Renames a value of the graph wherever it is named."""
    items = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
    for key, item in items:
        if key == "name" and item == old:
            value[key] = new
        elif isinstance(item, (dict, list)):
            rename(item, old, new)
    if isinstance(value, dict) and old in value:
        value[new] = value.pop(old)


def guards(path: Path, proof: Path) -> None:
    text = f"__import__('pathlib').Path({str(proof)!r}).touch() or True"
    change_json(path, PROGRAM, lambda program: program["guards_code"].append(text))


def types_of_inputs(path: Path, proof: Path) -> None:
    """A defaultdict names the module of its factory, which is imported."""
    (proof.parent / "wicked.py").write_text(f"open({str(proof)!r}, 'w').close()\nf = int\n")
    leaf = {"type": None, "context": None, "children_spec": []}
    context = {
        "default_factory_module": "wicked",
        "default_factory_name": "f",
        "dict_context": ["a"],
    }
    spec = {"type": "collections.defaultdict", "context": context, "children_spec": [leaf]}

    def change(program: dict[str, Any]) -> None:
        call = program["graph_module"]["module_call_graph"][0]["signature"]
        call["out_spec"] = json.dumps([1, spec])

    change_json(path, PROGRAM, change)


REFUSED = (pickled_weight, opaque_constant, calls_the_shell, shape_expression, name_of_an_input)
IGNORED = (sample_inputs, guards, types_of_inputs)


@pytest.mark.parametrize("attack", REFUSED)
def test_what_could_run_code_is_refused(attack: Attack, tmp_path: Path) -> None:
    path, proof = write_small(tmp_path / "m.pt2"), tmp_path / "proof"
    attack(path, proof)
    with pytest.raises(ModelError, match="refused") as raised:
        export_onnx(path, tmp_path)
    assert not proof.exists()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("attack", IGNORED)
def test_what_is_not_needed_is_not_read(
    attack: Attack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    path, proof = write_small(tmp_path / "m.pt2"), tmp_path / "proof"
    attack(path, proof)
    sys.modules.pop("wicked", None)
    assert export_onnx(path, tmp_path).exists()
    assert not proof.exists()


@pytest.mark.parametrize(
    "attack", [pickled_weight, opaque_constant, sample_inputs, shape_expression, types_of_inputs]
)
def test_the_attacks_are_real(
    attack: Attack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch's own loader falls for them; or else the tests above test nothing."""
    monkeypatch.syspath_prepend(tmp_path)
    path, proof = write_small(tmp_path / "m.pt2"), tmp_path / "proof"
    attack(path, proof)
    sys.modules.pop("wicked", None)
    with contextlib.suppress(Exception):
        torch.export.load(path)
    assert proof.exists()


def test_a_library_in_the_archive_is_not_loaded(tmp_path: Path) -> None:
    path = write_small(tmp_path / "m.pt2")
    change_record(path, "data/aotinductor/model/evil.so", lambda _: b"\x7fELF")
    assert export_onnx(path, tmp_path).exists()


@pytest.mark.parametrize(
    "name",
    [
        "torch.ops.load_library",
        "torch.ops.aten.from_file.default",
        "torch.ops.c10d.send.default",
        "torch.ops.aten.add.__init__",
        "torch.ops.aten.__class__.__init__",
        "torch.hub.load",
        "_operator.methodcaller",
        "math.os.system",
        "#ext:thing",
        "evil",
    ],
)
def test_other_operators_are_refused(name: str, tmp_path: Path) -> None:
    path = write_small(tmp_path / "m.pt2")
    change_json(path, PROGRAM, lambda program: first_node(program).update(target=name))
    with pytest.raises(ModelError, match="operator"):
        export_onnx(path, tmp_path)
