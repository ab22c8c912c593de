"""A crash, a hang or a failure in the reading process ends nothing else, and is told."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from networks import write_small_network
from tunebank.device import Device
from tunebank.errors import ModelError
from tunebank.model import Reader, load_model
from tunebank.model.notes import Notebook, Step, last_step

_ABORT = "import os; os.abort()"
_HANG = "import time; time.sleep(600)"
_RAISE = "raise RuntimeError('no such layout')"


@pytest.fixture
def spoil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Makes a function of the front half do something else in processes that start now."""

    def spoil_function(place: str, instead: str) -> None:
        module, _, name = place.partition(":")
        owner, _, attribute = f"{module}.{name}".rpartition(".")
        code = f"""
            import sys
            if "-c" in sys.orig_argv:
                import {module}
                def spoiled(*arguments, **options):
                    {instead}
                setattr({owner}, "{attribute}", spoiled)
        """
        (tmp_path / "sitecustomize.py").write_text(textwrap.dedent(code))
        paths = [str(tmp_path), os.environ.get("PYTHONPATH", "")]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))

    return spoil_function


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_small_network(tmp_path, repeated=1)


def test_after_a_crash_the_next_way_is_tried(
    spoil: Callable[[str, str], None], model: Path, device: Device
) -> None:
    spoil("tunebank.model.graph:in_nhwc", _ABORT)
    said: list[str] = []
    found = load_model(model, device, report=said.append)
    assert found.front_half.strategy == "convolutions in NCHW"
    assert found.front_half.convolutions == {"NCHW": 3}
    (warning,) = found.warnings
    assert "crash in layout (SIGABRT" in warning
    assert len(said) == 1
    assert "trying another way" in said[0]


def test_if_every_way_crashes_it_is_an_error_with_the_pass(
    spoil: Callable[[str, str], None], model: Path, device: Device
) -> None:
    spoil("tunebank.model.graph:fold_constants", _ABORT)
    with pytest.raises(ModelError) as caught:
        load_model(model, device)
    message = str(caught.value)
    assert message.startswith(f"{model}: ")
    assert message.count("crash in folding of constants") == 3
    assert "\n" not in message


def test_a_crash_of_a_pass_names_the_node(
    spoil: Callable[[str, str], None], model: Path, device: Device
) -> None:
    place = "tunebank.model.graph:fold_constants"
    spoil(
        place,
        f"""if "nn.max_pool2d" in str(arguments[0]) or "max_pool" in str(arguments[0]):
                        {_ABORT}
                    return arguments[0]""",
    )
    with pytest.raises(ModelError, match=r"at or before node maxpool_\d+ \(MaxPool\)"):
        load_model(model, device)


def test_a_crash_of_the_importer_names_the_node(
    spoil: Callable[[str, str], None], model: Path, device: Device
) -> None:
    place = "tvm.relax.frontend.onnx.onnx_frontend:GlobalAveragePool.get_converter"
    spoil(place, _ABORT)
    with pytest.raises(ModelError, match=r"ONNX importer, node globalaveragepool_\d+ "):
        load_model(model, device)


def test_a_failing_pass_is_left_out_too(
    spoil: Callable[[str, str], None], model: Path, device: Device
) -> None:
    spoil("tunebank.model.graph:in_nhwc", _RAISE)
    found = load_model(model, device)
    assert found.front_half.strategy == "convolutions in NCHW"
    assert "layout failed: no such layout" in found.warnings[0]


def test_what_hangs_is_ended(
    spoil: Callable[[str, str], None], model: Path, device: Device
) -> None:
    spoil("tunebank.model.graph:in_nhwc", _HANG)
    with Reader(timeout_seconds=10.0) as reader:
        found = load_model(model, device, reader=reader)
    assert "no end after 10 s in layout" in found.warnings[0]


def test_a_process_reads_several_models(model: Path, device: Device) -> None:
    with Reader() as reader:
        first = load_model(model, device, reader=reader)
        with pytest.raises(ModelError):
            load_model(model.with_name("none.onnx"), device, reader=reader)
        second = load_model(model, device, reader=reader)
    assert [k.key for k in first.kernels] == [k.key for k in second.kernels]


def test_the_last_step_outlives_its_writer(tmp_path: Path) -> None:
    file = tmp_path / "step"
    assert last_step(file) == Step("start")
    notebook = Notebook(file)
    notebook.note("a long name of a step", "a node")
    notebook.note("import", "conv\n7")
    assert str(last_step(file)) == "import, node conv 7"
    notebook.note("x" * 2000, "y")
    assert len(last_step(file).name) <= 512
    notebook.close()
