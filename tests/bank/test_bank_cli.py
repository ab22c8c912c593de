"""`tunebank bank`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bank_records import make_failure, make_record
from click.testing import CliRunner

from tunebank.bank import SqlBank
from tunebank.cli.bank import bank
from tunebank.errors import BankError


def run(*arguments: object) -> str:
    result = CliRunner().invoke(bank, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def url(tmp_path: Path) -> str:
    path = str(tmp_path / "bank.db")
    with SqlBank(path) as made:
        made.deposit(
            [make_record(1, kernel_key="k", kernel_name="a[b]"), make_record(2), make_failure(3)]
        )
    return path


@pytest.mark.parametrize("name", sorted(bank.commands))
def test_every_command_has_an_example(name: str) -> None:
    assert f"Example:\n    tunebank bank {name}" in run(name, "--help")


@pytest.mark.parametrize(
    "arguments",
    [
        ["path"],
        ["ls"],
        ["show", make_record(1, kernel_key="k").id[:12]],
        ["stats"],
        ["upgrade"],
        ["prune", "--keep", 1],
    ],
)
def test_json(url: str, arguments: list[object]) -> None:
    assert json.loads(run(*arguments, "--bank", url, "--json"))["schema_version"] == 1
    assert run(*arguments, "--bank", url).strip()


def test_ls(url: str) -> None:
    listed = json.loads(run("ls", "--bank", url, "--json", "--status", "ok"))["records"]
    assert [record["latency_us"] for record in listed] == [11.0, 12.0]
    assert "a[b]" in run("ls", "--bank", url), "brackets are no markup"


def test_export_import_merge(url: str, tmp_path: Path) -> None:
    file, new = tmp_path / "x.jsonl.zst", tmp_path / "new.db"
    assert json.loads(run("export", "--bank", url, "--json", file))["records"] == 3
    counts = json.loads(run("import", "--bank", new, "--json", file))["records"]
    assert counts == {"read": 3, "new": 3, "duplicate": 0, "failed": 1, "skipped": 0}
    assert "0 new, 3 duplicate" in run("merge", "--bank", new, url)


def test_import_metaschedule(metaschedule: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.db"
    assert "28 new" in run("import", "--bank", new, f"metaschedule:{metaschedule}")


def test_a_record_that_is_not_there(url: str) -> None:
    with pytest.raises(BankError, match="tunebank bank ls"):
        run("show", "--bank", url, "zzz")


def test_prune_must_keep_one(url: str) -> None:
    assert CliRunner().invoke(bank, ["prune", "--bank", url, "--keep", "0"]).exit_code == 2


def test_path_masks_the_password() -> None:
    assert "sekret" not in run("path", "--bank", "postgresql://u:sekret@h/db")
