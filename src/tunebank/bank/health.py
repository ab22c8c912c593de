"""Whether the banks that would be used are well: `tunebank doctor`'s part of this room."""

from __future__ import annotations

import os
from pathlib import Path

from tunebank.bank.chain import default_url
from tunebank.bank.location import sqlite_path
from tunebank.bank.shipped import shipped_banks
from tunebank.bank.sql import SqlBank
from tunebank.device.doctor import Check, check_disk
from tunebank.errors import BankError


def check_banks(url: str | None = None) -> list[Check]:
    """Checks the bank that is written, the disk that it is on, and the banks in the package."""
    chosen = url or default_url()
    checks = [_check_bank(chosen)]
    try:
        path = sqlite_path(chosen)
    except BankError:
        path = None  # said above
    if path is not None:
        checks.append(check_disk("disk, bank", path))
    shipped = shipped_banks()
    checks.extend(_check_readable(file) for file in shipped)
    if not shipped:
        fix = "install the package anew, or fill a bank: `tunebank bank import`, `tunebank tune`"
        checks.append(Check("shipped banks", "warn", "none in this package", fix))
    return checks


def _check_bank(url: str) -> Check:
    name = "bank"
    try:
        path = sqlite_path(url)
        if path is not None and not path.exists():
            return _check_new(name, path)
        with SqlBank(url, create=False) as bank:
            stats = bank.stats()
            found = f"{bank.name}: {sum(stats.records.values())} records, {stats.kernels} kernels"
    except BankError as error:
        return Check(name, "fail", str(error), "name another bank with --bank or TUNEBANK_BANK")
    if path is not None and not os.access(path, os.W_OK):
        fix = f"make it writable: chmod u+w {path}"
        return Check(name, "fail", f"{found}; it can't be written", fix)
    return Check(name, "ok", found)


def _check_new(name: str, path: Path) -> Check:
    """A bank that is not there yet: whether it could be made."""
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if folder.is_dir() and os.access(folder, os.W_OK):
        return Check(name, "ok", f"{path}: not there yet, is made when first needed")
    fix = "name another bank with --bank or TUNEBANK_BANK"
    return Check(name, "fail", f"{path}: can't be made: {folder} can't be written", fix)


def _check_readable(path: Path) -> Check:
    name = f"shipped bank {path.stem}"
    try:
        with SqlBank(str(path), readonly=True) as bank:
            stats = bank.stats()
    except BankError as error:
        return Check(name, "fail", str(error), "install the package anew")
    return Check(name, "ok", f"{sum(stats.records.values())} records, {stats.kernels} kernels")
