"""Clearing ended tokens of PostgreSQL while others read and write: in batches, and by partition."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import psycopg

from benchmarks import postgres, workload
from benchmarks.beside import MILLION, Cleared, beside, opened, purge
from benchmarks.harness import MILLISECOND, Line, Setting, most, span
from tokenkeep import IssuedToken, KeyRing, TokenIssuer
from tokenkeep._stepping import run
from tokenkeep.stores.sql.direct import open_database
from tokenkeep.stores.sql.migrating import Migrations
from tokenkeep.stores.sql.partitioning import Partitioning

GOAL_SECONDS: Final = 6.0
GOAL_BY_PARTITION: Final = 1.0
GOAL_SLOWER: Final = 2.0

RANDOM: Final = {
    "id": "substr(copied.id, 1, 2) || substr(sha256(n::text::bytea), 1, 14)",
    "digest": "sha256(n::text::bytea)",
    "user_id": "'user-' || n",
}


class DaysAgo:
    """A clock that makes tokens whose last day is over."""

    def now(self) -> datetime:
        return datetime.now(UTC) - timedelta(days=2)


def measure(setting: Setting) -> Iterator[Line]:
    if postgres.programs() is None:
        yield Line(work="clear, PostgreSQL", note="PostgreSQL is not installed")
        return
    keys = setting.folder / "keys"
    setting.keys.save(keys)
    with postgres.running() as url:
        for how, divided in (("in batches", False), ("by partition", True)):
            bearer = filled(url, setting.keys, setting.expired, divided=divided)
            log = written(url)
            cleared = beside(url, keys, bearer, purge, expired=setting.expired)
            yield from lines(how, cleared, setting.expired, written(url) - log, divided=divided)
        bearer = filled(url, setting.keys, setting.expired, divided=False)
        cleared = beside(url, keys, bearer, one_delete, expired=setting.expired)
        yield from lines("one DELETE, for comparison", cleared, setting.expired, 0, divided=None)


def lines(how: str, cleared: Cleared, expired: int, log: int, *, divided: bool | None) -> Iterator[Line]:
    work = f"clear {expired:,} of {2 * expired:,}, PostgreSQL, {how}"
    goals = {False: most(GOAL_SECONDS * expired / MILLION, "s"), True: most(GOAL_BY_PARTITION, "s")}
    note = f"{cleared.gone} gone, {cleared.refused} writes refused, {log / 1e6:.0f} MB of log with the writer's"
    yield Line(
        work=f"{work}: time",
        figure=cleared.seconds,
        unit="s",
        goal=None if divided is None else goals[divided],
        note=note,
    )
    for who, before, meanwhile in (
        ("writer", cleared.writer_before, cleared.writer),
        ("reader", cleared.reader_before, cleared.reader),
    ):
        yield Line(
            work=f"{work}: the {who}'s p99, beside that before", ours=span(meanwhile), peer="before",
            theirs=span(before), figure=meanwhile / before, goal=None if divided is None else most(GOAL_SLOWER),
            note=f"{meanwhile / MILLISECOND:.2f} ms",
        )  # fmt: skip


def filled(url: str, ring: KeyRing, expired: int, *, divided: bool) -> str:
    """Make the tables anew, with so many ended tokens and as many living; return a living one."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    database, naming = open_database(url)
    run(Migrations(database, naming).upgrade())
    if divided:
        partitioning = Partitioning(database, naming)
        run(partitioning.divide(1))
        now = datetime.now(UTC)
        run(partitioning.partitions.make_partitions(now - timedelta(days=2), now + timedelta(days=41)))
    run(database.close())
    with TokenIssuer.open(url, lifetime=workload.LIFETIME, keys=ring, clock=DaysAgo()) as issuer:
        dead = issuer.issue("user-0")
    with TokenIssuer.open(url, lifetime=workload.LIFETIME, keys=ring) as issuer:
        living = issuer.issue("user-0")
        with psycopg.connect(url, autocommit=True) as connection:
            for token in (dead, living):
                grow(connection, token, expired - 1)
            connection.execute("VACUUM ANALYZE")
            connection.execute("CHECKPOINT")
        return workload.plain(living)


def grow(connection: psycopg.Connection[Any], like: IssuedToken, count: int) -> None:
    """Add copies of a row under random ids of its day, beneath the library: they only make the table large."""
    named = connection.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'tokenkeep_issued'::regclass AND attnum > 0 ORDER BY attnum"
    )
    values = ", ".join(RANDOM.get(name, f"copied.{name}") for (name,) in named.fetchall())
    statement = (
        f"INSERT INTO tokenkeep_issued SELECT {values} FROM tokenkeep_issued AS copied, generate_series(1, %s) AS n"  # noqa: S608  # names of our own table
    )
    connection.execute(f"{statement} WHERE copied.id = %s".encode(), (count, bytes.fromhex(like.id)))


def written(url: str) -> int:
    """Bytes of the write-ahead log so far."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT pg_current_wal_lsn() - '0/0'").fetchone()
    assert row is not None
    return int(row[0])


def one_delete(url: str, keys: Path, into: Any) -> None:
    with opened(url, keys), psycopg.connect(url, autocommit=True) as connection:
        started = time.monotonic()
        gone = connection.execute("DELETE FROM tokenkeep_issued WHERE expires_at < now()").rowcount
        into.append((started, time.monotonic(), gone))
