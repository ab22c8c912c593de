"""`tunebank bank`: look into banks, fill them, carry them elsewhere.

Parses and prints; what the commands do is in `tunebank.bank`, which is imported when a command
runs, so that `--help` is quick.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunebank.cli.options import bank_option
from tunebank.cli.output import Command, json_option, note, print_data, print_json

if TYPE_CHECKING:
    from tunebank.bank import ImportResult, Record, SqlBank


def _options(command: Command) -> Command:
    """The options that every command has."""
    return bank_option(json_option(command))


def _filters(command: Command) -> Command:
    """The options that choose records."""
    command = click.option("--status", help="Only records of this status, such as `ok`.")(command)
    command = click.option("--source", help="Only records tuned for this model.")(command)
    command = click.option("--kernel", "kernel_key", help="Only records of this kernel.")(command)
    return click.option("--class", "class_key", help="Only kernels of this class.")(command)


@click.group()
def bank() -> None:
    """Look into banks, fill them, carry them elsewhere.

    \b
    Example:
      tunebank bank stats
    """


@bank.command()
@_options
def path(url: str | None, as_json: bool) -> None:
    """Print where the bank is.

    \b
    Example:
      tunebank bank path
    """
    from tunebank.bank import default_url
    from tunebank.bank.location import masked, sqlite_path

    chosen = url or default_url()
    file = sqlite_path(chosen)
    name = str(file) if file else masked(chosen)
    exists = file.exists() if file else None
    print_data({"bank": name, "exists": exists}, name, as_json)


@bank.command()
@_options
@_filters
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True)
def ls(url: str | None, as_json: bool, limit: int, **conditions: Any) -> None:
    """List records, fastest first.

    \b
    Example:
      tunebank bank ls --source resnet18 --status ok
    """
    with _open(url) as opened:
        found = opened.find(limit=limit, **conditions)
    if as_json:
        print_json({"records": [_summary(record) for record in found]})
    else:
        columns = ("record", "kernel", "class", "status", "latency_us", "GFLOP/s", "source")
        _print_table(columns, [_cells(record) for record in found])


@bank.command()
@_options
@click.argument("record_id")
def show(url: str | None, as_json: bool, record_id: str) -> None:
    """Show one record; the start of its id will do.

    \b
    Example:
      tunebank bank show 41ab09
    """
    from tunebank.errors import BankError

    with _open(url) as opened:
        record = opened.get(record_id)
        if record is None:
            raise BankError(
                f"{opened.name}: no record, or several, with an id from {record_id!r} on; "
                "`tunebank bank ls` lists them"
            )
    if as_json:
        whole = {"trace": json.loads(record.trace), "samples_us": list(record.samples_us)}
        print_json({"record": _summary(record) | whole})
    else:
        rows = [(name, _text(value)) for name, value in _summary(record).items()]
        _print_table(("field", "value"), rows)
        click.echo(record.trace)


@bank.command()
@_options
@click.option("--shipped", is_flag=True, help="Of the banks that come with the package.")
def stats(url: str | None, as_json: bool, shipped: bool) -> None:
    """Count what the bank holds, and say where a distilled one is from.

    \b
    Example:
      tunebank bank stats --shipped
    """
    from tunebank.bank import SqlBank, shipped_banks, vector_lanes_here

    if not shipped:
        with _open(url) as opened:
            found = [_about(opened)]
    else:
        used = shipped_banks(vector_lanes_here())
        found = []
        for file in shipped_banks():
            with SqlBank(str(file), readonly=True) as opened:
                found.append(_about(opened) | {"is_for_this_cpu": file in used})
    if as_json:
        print_json({"banks": found} if shipped else found[0])
        return
    for one in found:
        _print_table(("what", "count"), list(_stats_rows(one)))
        click.echo()


def _about(opened: SqlBank) -> dict[str, Any]:
    """What a bank holds, and what its cost model has learnt from."""
    from tunebank.transfer import pretrained

    model = pretrained(opened)
    learnt = {"learnt_from": dict(model.trials)} if model is not None else {}
    return {"bank": opened.name} | asdict(opened.stats()) | learnt


def _stats_rows(stats: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Each figure of a bank as a row; those of a group behind its name."""
    for field, value in stats.items():
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from _stats_rows({f"{field}: {key}": inner})
        elif isinstance(value, list):
            yield field, ", ".join(map(str, value))
        else:
            yield field, {True: "yes", False: "no"}.get(value, _text(value))


@bank.command("import")
@_options
@click.argument("origin")
@click.option("--source", help="Model that a MetaSchedule database was tuned for.")
@click.option("--device", default="unknown", show_default=True, help="Device it was tuned on.")
@click.option("--tvm-version", default="unknown", show_default=True, help="TVM that tuned it.")
@click.option("--skip-invalid", is_flag=True, help="Leave out lines that can't be read.")
def import_(url: str | None, as_json: bool, origin: str, **about: Any) -> None:
    """Bring records into the bank: all or none.

    ORIGIN is metaschedule:DIR (a MetaSchedule JSON database), an exported file, or a bank.

    \b
    Example:
      tunebank bank import metaschedule:logs/resnet18 --source resnet18
    """
    from tunebank.bank import import_records

    with _open(url, create=True) as opened:
        result = import_records(opened, origin, **about)
    for reason in result.invalid:
        note(f"left out: {reason}")
    _print_import(result, as_json)


@bank.command()
@_options
@_filters
@click.argument("file", type=click.Path(path_type=Path))
def export(url: str | None, as_json: bool, file: Path, **conditions: Any) -> None:
    """Write records to a file that `import` reads.

    \b
    Example:
      tunebank bank export resnet18.jsonl.zst --source resnet18
    """
    from tunebank.bank import write_export

    with _open(url) as opened:
        count = write_export(file, opened.find(**conditions))
    print_data({"file": str(file), "records": count}, f"{count} records written to {file}", as_json)


@bank.command()
@_options
@click.argument("other")
def merge(url: str | None, as_json: bool, other: str) -> None:
    """Bring all records of another bank into this one.

    \b
    Example:
      tunebank bank merge colleague.db
    """
    from tunebank.bank import SqlBank, import_records

    SqlBank(other, readonly=True).close()  # an export or a log folder is for `import`
    with _open(url, create=True) as opened:
        result = import_records(opened, other)
    _print_import(result, as_json)


@bank.command()
@_options
@click.option(
    "--keep", type=click.IntRange(min=1), required=True, help="Records left per kernel and device."
)
def prune(url: str | None, as_json: bool, keep: int) -> None:
    """Drop all but the fastest records of each kernel and device.

    \b
    Example:
      tunebank bank prune --keep 10
    """
    with _open(url) as opened:
        dropped = opened.prune(keep=keep)
    print_data({"dropped": dropped}, f"{dropped} records dropped", as_json)


@bank.command()
@_options
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    default=6,
    show_default=True,
    help="Records of each kernel and device at most.",
)
def distil(url: str | None, as_json: bool, file: Path, keep: int) -> None:
    """Write a small bank to FILE: of each kernel the best few records that differ in kind.

    \b
    Example:
      tunebank bank distil small.db --bank zoo.db --keep 6
    """
    from tunebank.bank import distil as write_small

    with _open(url) as opened:
        made_of = write_small(opened, file, keep=keep)
    text = "{records} records of {kernels} kernels, from {trials} trials".format(**made_of)
    print_data({"file": str(file)} | made_of, text, as_json)


@bank.command()
@_options
@click.option("--into", metavar="URL", help="Another bank to keep it in.")
def learn(url: str | None, as_json: bool, into: str | None) -> None:
    """Train the cost model that orders schedules on all of the bank's trials.

    It takes about a second for a thousand trials. `tune` and `compile` let it learn by themselves,
    on top of what there is, whenever what was measured here has grown by a fifth.

    \b
    Example:
      tunebank bank learn --bank zoo.db
    """
    from tunebank.errors import UsageError
    from tunebank.transfer.pretraining import kernel_trials
    from tunebank.transfer.pretraining import learn as train

    with _open(url) as opened:
        trials = kernel_trials(opened.find())
        if not trials:
            raise UsageError(
                f"{opened.name}: too few trials of any kernel; `tunebank tune` makes them"
            )
        model = train(trials, threads=1)
        with _open(into or url) as keeper:
            keeper.set_cost_model(model.model_dump_json())
    data = {"kernels": len(trials), "trials": dict(model.trials), "bank": keeper.name}
    text = f"learnt from {model.trials.total()} trials of {len(trials)} kernels"
    print_data(data, text, as_json)


@bank.command()
@_options
def upgrade(url: str | None, as_json: bool) -> None:
    """Bring the bank to this version's schema.

    \b
    Example:
      tunebank bank upgrade
    """
    from tunebank.bank.schema import SCHEMA_VERSION as BANK_SCHEMA_VERSION

    # Version 1 is the first, so a bank that opens is up to date.
    with _open(url) as opened:
        data = {"bank": opened.name, "bank_schema_version": BANK_SCHEMA_VERSION, "changed": False}
    print_data(data, f"up to date: schema {BANK_SCHEMA_VERSION}", as_json)


def _open(url: str | None, *, create: bool = False) -> SqlBank:
    from tunebank.bank import SqlBank, default_url

    return SqlBank(url or default_url(), create=create)


def _summary(record: Record) -> dict[str, Any]:
    """What is shown of a record: all but programs and schedules."""
    row = {"id": record.id} | asdict(record) | {"gflop_per_s": record.gflops}
    row["flop"] = row.pop("flops")
    for long in ("kernel_ir", "trace", "samples_us"):
        del row[long]
    return row


def _cells(record: Record) -> tuple[str, ...]:
    keys = (record.id[:8], record.kernel_name, record.class_key[:8], record.status)
    return (*keys, _text(record.latency_us), _text(record.gflops), record.source)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _print_import(result: ImportResult, as_json: bool) -> None:
    counts = {
        "read": result.read,
        "new": result.new,
        "duplicate": result.duplicate,
        "failed": result.failed,
        "skipped": len(result.invalid),
    }
    text = ", ".join(f"{count} {name}" for name, count in counts.items())
    print_data({"records": counts}, text, as_json)


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from tunebank.report import print_table

    print_table(columns, rows)
