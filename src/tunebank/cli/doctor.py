"""`tunebank doctor`: checks the machine."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from tunebank.cli.options import bank_option
from tunebank.cli.output import json_option, print_json

if TYPE_CHECKING:
    from tunebank.device.doctor import Check

_STYLES = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command()
@bank_option
@json_option
@click.pass_context
def doctor(ctx: click.Context, url: str | None, as_json: bool) -> None:
    """Check this machine: what would go wrong here, and the fix.

    Ends with exit code 1 if a check fails.

    \b
    Example:
      tunebank doctor
    """
    from tunebank.bank.health import check_banks
    from tunebank.device.doctor import check_machine

    checks = [*check_machine(), *check_banks(url)]
    failed = any(check.status == "fail" for check in checks)
    if as_json:
        print_json({"ok": not failed, "checks": [asdict(check) for check in checks]})
    else:
        _print(checks)
    ctx.exit(1 if failed else 0)


def _print(checks: list[Check]) -> None:
    from tunebank.report import print_table

    rows: list[tuple[str, ...]] = []
    styles = []
    for check in checks:
        rows.append((check.status, check.name, check.found))
        styles.append(_STYLES[check.status])
        if check.fix:
            rows.append(("", "", f"fix: {check.fix}"))
            styles.append(_STYLES[check.status])
    print_table(("", "check", "found"), rows, styles=styles)
