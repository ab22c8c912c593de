"""A bank: a store of records."""

from tunebank.bank.bank import Bank, BankStats
from tunebank.bank.chain import BankChain, default_url, open_banks
from tunebank.bank.distil import distil
from tunebank.bank.exchange import ImportResult, import_records, write_export
from tunebank.bank.record import Origin, Record, Status
from tunebank.bank.shipped import shipped_banks, vector_lanes_here
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
    "distil",
    "import_records",
    "open_banks",
    "shipped_banks",
    "vector_lanes_here",
    "write_export",
]
