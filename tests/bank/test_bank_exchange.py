"""Export, import, merge, MetaSchedule databases."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard
from bank_records import ASSETS, make_failure, make_record
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunebank.bank import Record, SqlBank, import_records, write_export
from tunebank.bank.exchange import FORMAT, read_export
from tunebank.errors import BankError

texts = st.text(st.characters(codec="utf-8"), max_size=20)
latencies = st.floats(min_value=1e-3, max_value=1e9)
made = st.builds(
    make_record,
    st.integers(0, 50),
    kernel_key=st.sampled_from(["a", "b", "c"]),
    source=texts,
    device=texts,
    latency_us=latencies,
    samples_us=st.lists(latencies, max_size=3).map(tuple),
    donor_id=st.none() | texts,
)


@given(st.lists(made | st.builds(make_failure, st.integers(51, 60), error=texts), max_size=12))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_export_then_import_is_the_identity(records: list[Record]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "records.jsonl.zst"
        assert write_export(file, records) == len(records)
        assert list(read_export(file)) == records


def test_a_cut_export_is_refused_whole(tmp_path: Path) -> None:
    file, cut = tmp_path / "whole.jsonl.zst", tmp_path / "cut.jsonl.zst"
    write_export(file, [make_record(n, source=f"model{n}") for n in range(300)])
    data = file.read_bytes()
    bank = SqlBank("sqlite://")
    for size in range(4, len(data) - 4, max(1, len(data) // 60)):
        cut.write_bytes(data[:size])
        with pytest.raises(BankError):
            import_records(bank, str(cut))
    assert bank.find() == []


def lines_file(path: Path, lines: list[object]) -> str:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    path.write_bytes(zstandard.compress(text.encode()))
    return str(path)


def test_an_export_cut_between_lines_is_refused(tmp_path: Path) -> None:
    header = {"format": FORMAT, "schema_version": 1}
    bank = SqlBank("sqlite://")
    for tail in ([], [{"record_count": 1}], [{"kernel_key": "a"}], [5]):
        with pytest.raises(BankError, match="cut off"):
            import_records(bank, lines_file(tmp_path / "x.zst", [header, *tail]))


def test_a_newer_export_names_the_remedy(tmp_path: Path) -> None:
    header = {"format": FORMAT, "schema_version": 99}
    with pytest.raises(BankError, match="upgrade"):
        import_records(SqlBank("sqlite://"), lines_file(tmp_path / "x.zst", [header]))


def test_an_export_that_fails_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BankError):
        write_export(tmp_path / "file" / "x.zst", [])
    with pytest.raises(ZeroDivisionError):
        write_export(tmp_path / "x.zst", (1 // 0 for _ in range(1)))  # type: ignore[misc]
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_merging_banks(tmp_path: Path) -> None:
    with SqlBank(str(tmp_path / "other.db")) as other:
        other.deposit([make_record(1), make_failure(2)])
    bank = SqlBank("sqlite://")
    bank.deposit([make_record(1)])
    result = import_records(bank, str(tmp_path / "other.db"))
    assert (result.read, result.new, result.duplicate, result.failed) == (2, 1, 1, 1)


def test_importing_leaves_the_other_bank_as_it_was(tmp_path: Path) -> None:
    old = ASSETS / "bank_schema_1.db"
    (tmp_path / "old.db").write_bytes(old.read_bytes())
    assert import_records(SqlBank("sqlite://"), str(tmp_path / "old.db")).new == 2
    assert (tmp_path / "old.db").read_bytes() == old.read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ["old.db"]


def test_metaschedule(metaschedule: Path) -> None:
    bank = SqlBank("sqlite://")
    result = import_records(bank, f"metaschedule:{metaschedule}")
    assert (result.read, result.new, result.failed, result.invalid) == (28, 28, 1, ())
    assert import_records(bank, f"metaschedule:{metaschedule}").new == 0
    assert bank.stats().kernels == 4
    (failed,) = bank.find(status="run_failed")
    assert failed.error
    assert failed.latency_us is None
    first = bank.find(limit=1)[0]
    assert (first.source, first.origin, first.threads) == ("resnet18", "import", 2)
    assert "EnterPostproc" not in first.trace


def test_metaschedule_programs_can_be_loaded_again(metaschedule: Path) -> None:
    from tunebank.kernel import Kernel

    bank = SqlBank("sqlite://")
    import_records(bank, f"metaschedule:{metaschedule}", source="named", device="cpu")
    for record in {r.kernel_key: r for r in bank.find(source="named")}.values():
        kernel = Kernel.from_ir(record.kernel_ir, name=record.kernel_name)
        assert (kernel.key, kernel.class_key) == (record.kernel_key, record.class_key)
        assert replace(record, device="cpu") == record


@pytest.mark.parametrize("line", ['[0,[[[["GetSBl', "[-1,[[[],[]],[1.0],{},[]]]", "[99,[]]", "7"])
def test_metaschedule_lines_that_cannot_be_read(metaschedule: Path, line: str) -> None:
    with (metaschedule / "database_tuning_record.json").open("a") as file:
        file.write(line + "\n")
    bank = SqlBank("sqlite://")
    with pytest.raises(BankError, match=r"database_tuning_record\.json, line 29"):
        import_records(bank, f"metaschedule:{metaschedule}")
    assert bank.find(status=None) == []
    result = import_records(bank, f"metaschedule:{metaschedule}", skip_invalid=True)
    assert (result.new, len(result.invalid)) == (28, 1)


def test_metaschedule_workload_that_cannot_be_read(metaschedule: Path) -> None:
    path = metaschedule / "database_workload.json"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(['["1","!!"]', *lines[1:]]))
    bank = SqlBank("sqlite://")
    with pytest.raises(BankError, match="line 1: not a workload"):
        import_records(bank, f"metaschedule:{metaschedule}")
    result = import_records(bank, f"metaschedule:{metaschedule}", skip_invalid=True)
    assert (result.new, len(result.invalid)) == (19, 10)  # its nine records go with it


def test_no_metaschedule_database(tmp_path: Path) -> None:
    with pytest.raises(BankError, match="missing"):
        import_records(SqlBank("sqlite://"), f"metaschedule:{tmp_path}")
