"""Bad inputs of `tunebank compile`: one line that names the cause and the cure, nothing written."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_models import conv_net, unary

from tunebank.bank import SqlBank
from tunebank.cli import main


@pytest.fixture
def default_bank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "data" / "bank.db"
    monkeypatch.setenv("TUNEBANK_BANK", str(path))
    return path


@pytest.fixture
def refused(
    tmp_path: Path, default_bank: Path, capfd: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Runs a command that must be refused; returns what it says."""

    def run(*arguments: object) -> str:
        before = contents(tmp_path)
        with pytest.raises(SystemExit) as ended:
            main(["--quiet", *(str(argument) for argument in arguments)])
        captured = capfd.readouterr()
        assert ended.value.code == 2, captured.err
        assert captured.out == ""
        assert captured.err.startswith("error: "), captured.err
        assert captured.err.count("\n") == 1, f"more than one line: {captured.err}"
        assert contents(tmp_path) == before, "something was written"
        return captured.err

    return run


def contents(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def compile_arguments(model: Path, out: Path) -> list[object]:
    return ["compile", model, "-o", out, "--time-budget", "0", "--threads", "1"]


@pytest.fixture
def compiling(tmp_path: Path, refused: Callable[..., str]) -> Callable[..., str]:
    """Compiles a model that is refused, into a folder of its own."""
    return lambda model, *more: refused(*compile_arguments(model, tmp_path / "out"), *more)


def test_missing_file(tmp_path: Path, compiling: Callable[..., str]) -> None:
    said = compiling(tmp_path / "none.onnx")
    assert "none.onnx: no such file" in said


def test_text_named_onnx(tmp_path: Path, compiling: Callable[..., str]) -> None:
    path = tmp_path / "text.onnx"
    path.write_text("This is a text.\n" * 9)
    assert "text.onnx: not an ONNX model" in compiling(path)


@pytest.mark.parametrize("part", [0.3, 0.9])
def test_cut_off_model(tmp_path: Path, compiling: Callable[..., str], part: float) -> None:
    path = conv_net(tmp_path / "cut.onnx")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    assert "cut.onnx: " in compiling(path)


def test_operator_of_another_domain(tmp_path: Path, compiling: Callable[..., str]) -> None:
    path = unary(tmp_path / "own.onnx", "Frobnicate", [1, 4], domain="com.example")
    assert "Frobnicate" in compiling(path)


def test_operator_that_tvm_lacks(tmp_path: Path, compiling: Callable[..., str]) -> None:
    said = compiling(unary(tmp_path / "det.onnx", "Det", [4, 4]))
    assert "Det" in said
    assert "operator" in said


def test_dynamic_dimension(tmp_path: Path, compiling: Callable[..., str]) -> None:
    path = conv_net(tmp_path / "open.onnx", batch="N")
    assert "--input-shape x:1,4,12,12" in compiling(path), "the line can be copied"


@pytest.mark.parametrize(
    ("shape", "said"),
    [("z:1,4,12,12", "no input 'z'"), ("x:1,4,12", "dimensions"), ("x:1,5,12,12", "fixed to")],
)
def test_wrong_input_shape(
    tmp_path: Path, compiling: Callable[..., str], shape: str, said: str
) -> None:
    path = conv_net(tmp_path / "open.onnx", batch="N")
    assert said in compiling(path, "--input-shape", shape)


@pytest.mark.parametrize(
    "target",
    [
        "nonesuch",
        '{"kind":',
        '{"mcpu":"core-avx2"}',
        '{"kind":"cuda"}',
        '{"kind":"llvm","mcpu":"i8087"}',
        '{"kind":"llvm","mtriple":"bogus-unknown-linux"}',
    ],
)
def test_unknown_target(tmp_path: Path, compiling: Callable[..., str], target: str) -> None:
    said = compiling(conv_net(tmp_path / "net.onnx"), "--target", target)
    assert "target" in said


def test_output_that_cant_be_written(tmp_path: Path, refused: Callable[..., str]) -> None:
    model, file = conv_net(tmp_path / "net.onnx"), tmp_path / "file"
    file.write_text("in the way")
    for out in (file / "out", Path("/proc/tunebank-out")):
        assert str(out) in refused(*compile_arguments(model, out))


def test_output_that_is_something_else(tmp_path: Path, refused: Callable[..., str]) -> None:
    model, folder = conv_net(tmp_path / "net.onnx"), tmp_path / "photos"
    folder.mkdir()
    (folder / "cat.jpg").write_bytes(b"cat")
    assert "photos" in refused(*compile_arguments(model, folder))


def test_bank_that_is_none(tmp_path: Path, compiling: Callable[..., str]) -> None:
    bank = tmp_path / "notes.db"
    bank.write_text("not a database, but long enough to be mistaken for one. " * 20)
    assert "notes.db" in compiling(conv_net(tmp_path / "net.onnx"), "--bank", bank)


def test_bank_of_a_newer_schema(tmp_path: Path, compiling: Callable[..., str]) -> None:
    bank = tmp_path / "newer.db"
    SqlBank(str(bank)).close()
    with sqlite3.connect(bank) as connection:
        connection.execute("UPDATE tunebank_meta SET value = '99' WHERE name = 'schema_version'")
    connection.close()
    said = compiling(conv_net(tmp_path / "net.onnx"), "--bank", bank)
    assert "newer" in said
    assert "upgrade tunebank" in said


def test_no_artifact(tmp_path: Path, refused: Callable[..., str]) -> None:
    for command in (["run", tmp_path, "--random"], ["bench", tmp_path / "none"]):
        assert str(tmp_path) in refused(*command)
