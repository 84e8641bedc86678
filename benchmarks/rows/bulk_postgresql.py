"""Whole rows put into PostgreSQL by the hundred thousand, as `tokenkeep db copy` does: beside one COPY."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from itertools import batched
from typing import Any

import psycopg
from psycopg import sql

from benchmarks import postgres, workload
from benchmarks.harness import Line, Setting, interleaved, least
from benchmarks.rows import bulk
from tokenkeep import KeyRing, TokenIssuer
from tokenkeep._stepping import run
from tokenkeep.opening import open_backend
from tokenkeep.ports import Room, Row, Transferable

OURS, RAW = "add_rows, batches of 5,000, each durable", "COPY, binary, in one transaction"


def measure(setting: Setting) -> Iterator[Line]:
    if postgres.programs() is None:
        yield Line(work="insert in bulk, PostgreSQL", note="PostgreSQL is not installed")
        return
    rows = bulk.made(setting.folder / "one.db", setting.keys)
    with postgres.running() as url:
        rounds = interleaved(
            {OURS: lambda: ours(fresh(url, setting.keys), rows), RAW: lambda: raw(fresh(url, setting.keys), rows)},
            runs=setting.runs,
        )
    yield rounds.gain(f"insert {len(rows):,} rows in bulk, PostgreSQL", OURS, RAW, least(0.7))


def fresh(url: str, keys: KeyRing) -> str:
    """Make a database with our tables."""
    name = f"bulk_{secrets.token_hex(4)}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    its_url = f"{url.rpartition('/')[0]}/{name}"
    with TokenIssuer.open(its_url, lifetime=workload.LIFETIME, keys=keys) as issuer:
        issuer.status()
    return its_url


def ours(url: str, rows: Sequence[Row]) -> float:
    """Seconds a row."""
    backend = open_backend(url)
    assert isinstance(backend.transfer, Transferable)
    started = time.perf_counter()
    for some in batched(rows, backend.transfer.together):
        run(backend.transfer.add_rows(Room.ISSUED, some))
    taken = time.perf_counter() - started
    run(backend.health.close())
    return taken / len(rows)


def raw(url: str, rows: Sequence[Row]) -> float:
    """Seconds a row, into the same table with the same indexes, the values ready for the driver."""
    values: list[tuple[Any, ...]] = [tuple(row.values()) for row in rows]
    columns = sql.SQL(", ").join(map(sql.Identifier, rows[0]))
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(sql.SQL("SELECT {} FROM tokenkeep_issued").format(columns))
        types = [column.type_code for column in cursor.description or ()]
        started = time.perf_counter()
        with cursor.copy(sql.SQL("COPY tokenkeep_issued ({}) FROM STDIN (FORMAT BINARY)").format(columns)) as copy:
            copy.set_types(types)
            for row in values:
                copy.write_row(row)
        connection.commit()
        return (time.perf_counter() - started) / len(rows)
