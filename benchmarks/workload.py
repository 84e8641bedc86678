"""Tokens to measure with: made by the public interface, in tables grown to the size that is wanted."""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Final

from tokenkeep import AsyncTokenIssuer, IssuedToken, KeyRing

LIFETIME: Final = timedelta(hours=12)
CALLERS: Final = 500
RANDOM: Final = Random(1)  # noqa: S311  # which token is asked for next is no secret

RAW_TABLE: Final = (
    "CREATE TABLE token (digest BLOB PRIMARY KEY, user_id TEXT NOT NULL, expires_at INTEGER NOT NULL) WITHOUT ROWID"
)
RAW_SELECT: Final = "SELECT user_id, expires_at FROM token WHERE digest = ?"
RAW_INSERT: Final = "INSERT INTO token VALUES (?, ?, ?)"
RAW_END: Final = 2_000_000_000_000_000


class Yesterday:
    """A clock that makes tokens which have ended by now."""

    def now(self) -> datetime:
        return datetime.now(UTC) - timedelta(days=1)


def url(path: Path) -> str:
    return f"sqlite:///{path}"


def issue(path: Path, count: int, keys: KeyRing, *, ended: bool = False) -> list[IssuedToken]:
    """Issue tokens, many at once."""

    async def issuing() -> list[IssuedToken]:
        made: list[IssuedToken] = []
        clock = Yesterday() if ended else None
        async with AsyncTokenIssuer.open(url(path), lifetime=LIFETIME, keys=keys, clock=clock) as issuer:
            for start in range(0, count, CALLERS):
                users = range(start, min(start + CALLERS, count))
                made += await asyncio.gather(*(issuer.issue(f"user-{n:07}", scopes={"orders:read"}) for n in users))
        return made

    return asyncio.run(issuing())


def plain(token: IssuedToken) -> str:
    """The bearer, as a client sends it."""
    assert token.token is not None
    return token.token.reveal()


def grow(path: Path, like: IssuedToken, count: int) -> None:
    """Add copies of a row under random ids of its day, beneath the library: they only make the table large."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA cache_size = -1000000")
        columns = [row[1] for row in connection.execute("PRAGMA table_info(tokenkeep_issued)")]
        random = {
            "id": "CAST(substr(copied.id, 1, 2) || randomblob(14) AS BLOB)",
            "digest": "randomblob(32)",
            "user_id": "printf('user-%07d', n.i)",
        }
        values = ", ".join(random.get(column, f'copied."{column}"') for column in columns)
        connection.execute(
            "INSERT INTO tokenkeep_issued WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "  # noqa: S608  # names of our own table
            f"SELECT {values} FROM n, (SELECT * FROM tokenkeep_issued WHERE id = ?) AS copied",
            (count, bytes.fromhex(like.id)),
        )
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def issued(path: Path, count: int, rows: int, keys: KeyRing) -> list[str]:
    """Return that many bearers that are good, in a table of so many rows."""
    made = issue(path, min(count, rows), keys)
    if rows > len(made):
        grow(path, made[0], rows - len(made))
    return [plain(token) for token in made]


def raw(path: Path, count: int, rows: int) -> tuple[sqlite3.Connection, list[bytes]]:
    """Make the smallest table that could do it, and return a connection and keys that it holds."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(RAW_TABLE)
    keys = [secrets.token_bytes(32) for _ in range(min(count, rows))]
    others = (secrets.token_bytes(32) for _ in range(rows - len(keys)))
    connection.execute("BEGIN")
    connection.executemany(RAW_INSERT, ((key, f"user-{n:07}", RAW_END) for n, key in enumerate(keys)))
    connection.executemany(RAW_INSERT, ((key, "user-0000000", RAW_END) for key in others))
    connection.execute("COMMIT")
    return connection, keys


def picked[T](items: Sequence[T], count: int) -> list[T]:
    """Choose at random, with repetition."""
    return RANDOM.choices(items, k=count)
