"""Whole rows put in by the hundred thousand, as `tokenkeep db copy` does: beside one executemany in one transaction."""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import batched
from pathlib import Path
from typing import Any, Final

from benchmarks import workload
from benchmarks.harness import Line, Setting, interleaved, least
from tokenkeep import KeyRing
from tokenkeep._stepping import run
from tokenkeep.opening import open_backend
from tokenkeep.ports import Room, Row, Transferable

ROWS: Final = 100_000
OURS, RAW = "add_rows, in batches as a copy does, each durable", "executemany in one transaction"


def measure(setting: Setting) -> Iterator[Line]:
    rows = made(setting.folder / "one.db", setting.keys)
    places = iter(range(1000))

    def fresh(name: str) -> Path:
        path = setting.folder / f"{name}-{next(places)}.db"
        workload.issue(path, 1, setting.keys)
        return path

    rounds = interleaved(
        {OURS: lambda: ours(fresh("ours"), rows), RAW: lambda: raw(fresh("raw"), rows)}, runs=min(setting.runs, 3)
    )
    yield rounds.gain(f"insert {ROWS:,} rows in bulk", OURS, RAW, least(0.7))


def made(path: Path, keys: KeyRing) -> list[Row]:
    """Copies of one issued token under random ids."""
    workload.issue(path, 1, keys)
    backend = open_backend(workload.url(path))
    assert isinstance(backend.transfer, Transferable)
    [row] = run(backend.transfer.read_rows(Room.ISSUED, after=None, limit=1))
    run(backend.health.close())
    random = ({"id": row["id"][:2] + secrets.token_bytes(14), "digest": secrets.token_bytes(32)} for _ in range(ROWS))
    return [{**row, **new, "user_id": f"user-{number:07}"} for number, new in enumerate(random)]


def ours(path: Path, rows: Sequence[Row]) -> float:
    """Seconds a row."""
    backend = open_backend(workload.url(path))
    assert isinstance(backend.transfer, Transferable)
    started = time.perf_counter()
    for some in batched(rows, backend.transfer.together):
        run(backend.transfer.add_rows(Room.ISSUED, some))
    taken = time.perf_counter() - started
    run(backend.health.close())
    return taken / len(rows)


def raw(path: Path, rows: Sequence[Row]) -> float:
    """Seconds a row, into the same table with the same indexes, the values ready for the driver."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        columns = [column[1] for column in connection.execute("PRAGMA table_info(tokenkeep_issued)")]
        like = dict(zip(columns, connection.execute("SELECT * FROM tokenkeep_issued").fetchone(), strict=True))
        taken = ("id", "digest", "user_id")
        values: list[list[Any]] = [[row[name] if name in taken else like[name] for name in columns] for row in rows]
        connection.execute("PRAGMA synchronous = FULL")
        marks = ", ".join("?" * len(columns))
        started = time.perf_counter()
        connection.execute("BEGIN")
        connection.executemany(f"INSERT INTO tokenkeep_issued VALUES ({marks})", values)  # noqa: S608  # question marks
        connection.execute("COMMIT")
        return (time.perf_counter() - started) / len(rows)
