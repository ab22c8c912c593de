"""A bank: a store of records."""

from tunebank.bank.bank import Bank, BankStats
from tunebank.bank.chain import BankChain, default_url, open_banks, shipped_banks
from tunebank.bank.exchange import ImportResult, import_records, write_export
from tunebank.bank.record import Origin, Record, Status
from tunebank.bank.sql import SqlBank

__all__ = [
    "Bank",
    "BankChain",
    "BankStats",
    "ImportResult",
    "Origin",
    "Record",
    "SqlBank",
    "Status",
    "default_url",
    "import_records",
    "open_banks",
    "shipped_banks",
    "write_export",
]
