"""How a look-up slows down as the table grows, and how large it grows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from benchmarks import workload
from benchmarks.harness import Line, Setting, interleaved, most, per_call
from tokenkeep import TokenIssuer

SMALL: Final = 10_000
CALLS: Final = 5000
RAW_SMALL, RAW_LARGE, OURS_SMALL, OURS_LARGE = "raw, small", "raw, large", "ours, small", "ours, large"


def measure(setting: Setting) -> Iterator[Line]:
    small, large = setting.folder / "small.db", setting.folder / "large.db"
    small_tokens = workload.issued(small, SMALL, SMALL, setting.keys)
    large_tokens = workload.issued(large, SMALL, setting.large, setting.keys)
    raw_small, small_keys = workload.raw(setting.folder / "raw-small.db", SMALL, SMALL)
    raw_large, large_keys = workload.raw(setting.folder / "raw-large.db", SMALL, setting.large)
    with (
        closing(raw_small),
        closing(raw_large),
        TokenIssuer.open(workload.url(small), lifetime=workload.LIFETIME, keys=setting.keys) as few,
        TokenIssuer.open(workload.url(large), lifetime=workload.LIFETIME, keys=setting.keys) as many,
    ):
        rounds = interleaved(
            {
                OURS_LARGE: lambda: per_call(many.verify, workload.picked(large_tokens, CALLS)),
                OURS_SMALL: lambda: per_call(few.verify, workload.picked(small_tokens, CALLS)),
                RAW_LARGE: lambda: raw_reads(raw_large, large_keys),
                RAW_SMALL: lambda: raw_reads(raw_small, small_keys),
            },
            runs=setting.runs,
        )
    grown = f"from {SMALL:,} to {setting.large:,} rows"
    yield rounds.cost(f"verify, growth {grown}", OURS_LARGE, OURS_SMALL, most(2))
    yield rounds.cost(f"raw sqlite3, growth {grown}", RAW_LARGE, RAW_SMALL)
    yield from size(large, setting.folder / "raw-large.db")


def raw_reads(connection: sqlite3.Connection, keys: list[bytes]) -> float:
    execute = connection.execute
    return per_call(lambda key: execute(workload.RAW_SELECT, (key,)).fetchone(), workload.picked(keys, CALLS))


def size(path: Path, raw: Path) -> Iterator[Line]:
    table = bytes_a_row(path, "tokenkeep_issued", ("tokenkeep_issued",))
    index = bytes_a_row(path, "tokenkeep_issued", ("tokenkeep_issued_user", "tokenkeep_issued_family"))
    bare = bytes_a_row(raw, "token", ("token",))
    audit = bytes_a_row(path, "tokenkeep_audit", ("tokenkeep_audit", "tokenkeep_audit_user"))
    yield Line(
        work="bytes a row of issued tokens", peer="raw table", theirs=f"{bare:.0f} bytes",
        figure=table + index, unit="bytes", goal=most(95, "bytes"),
        note=f"table {table:.0f}, indexes {index:.0f}; an audit event takes {audit:.0f} more",
    )  # fmt: skip


def bytes_a_row(path: Path, table: str, parts: tuple[str, ...]) -> float:
    with closing(sqlite3.connect(path)) as connection:
        [rows] = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608  # names of ours
        total = 0
        for part in parts:
            [pages] = connection.execute("SELECT sum(pgsize) FROM dbstat WHERE name = ?", (part,)).fetchone()
            total += pages or 0
    return float(total / rows)
