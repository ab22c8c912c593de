"""Tables of a bank, version 1. Payloads are compressed text: nothing in them is executed."""

from __future__ import annotations

from sqlalchemy import (
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

SCHEMA_VERSION = 1

metadata = MetaData()

meta = Table(
    "tunebank_meta",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)

kernels = Table(
    "kernels",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("class_key", String(64), nullable=False, index=True),
    Column("anchor_key", String(64), nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("flops", Float, nullable=False),
    Column("ir", LargeBinary, nullable=False),
)

records = Table(
    "records",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("kernel_key", String(64), ForeignKey("kernels.key"), nullable=False),
    Column("status", String(16), nullable=False),
    Column("latency_us", Float),
    Column("samples_us", Text, nullable=False),
    Column("source", Text, nullable=False, index=True),
    Column("origin", String(16), nullable=False),
    Column("target", Text, nullable=False),
    Column("device", Text, nullable=False),
    Column("threads", Integer, nullable=False),
    Column("tvm_version", String(32), nullable=False),
    Column("created_at", String(40), nullable=False),
    Column("error", Text),
    Column("donor_id", String(64)),
    Column("trace", LargeBinary, nullable=False),
    Index("ix_records_kernel_latency", "kernel_key", "latency_us"),
)
