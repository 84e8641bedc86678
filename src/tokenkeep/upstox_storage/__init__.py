"""The five storage classes of upstox-totp's documentation, as thin faces of the vault.

The same constructors, methods and dictionaries; only the import changes. The tokens are sealed, one login serves all
processes, and a database that the documentation's own code has filled is taken over when it is first opened.

Each constructor also takes `upstox`, where new tokens come from instead of the account of the environment, and `keys`
and `clock` as `TokenVault.open` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from os import PathLike
from typing import Any

from tokenkeep.keyring import KeyRing
from tokenkeep.ports import Clock, Provider
from tokenkeep.upstox_storage._addresses import mongo_url, postgresql_url, redis_url, sqlite_url
from tokenkeep.upstox_storage._old_sqlite import SQLiteTable
from tokenkeep.upstox_storage._storage import Storage
from tokenkeep.upstox_storage._takeover import OldTokens, Opening
from tokenkeep.upstox_storage._text import TokenText

__all__ = [
    "HybridUpstoxStorage",
    "MongoUpstoxStorage",
    "PooledUpstoxStorage",
    "PostgreSQLUpstoxStorage",
    "SQLiteUpstoxStorage",
    "TokenText",
]

_COUNTED = (*Storage.VALID, "usage_count")


class SQLiteUpstoxStorage(Storage):
    """Tokens in a SQLite file, with the key to them in `<file>.key` unless `keys` or the environment has one."""

    def __init__(
        self,
        db_path: str | PathLike[str] = "upstox.db",
        *,
        upstox: Provider | None = None,
        keys: KeyRing | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._open(sqlite_url(db_path), upstox=upstox, keys=keys, clock=clock, old=SQLiteTable(db_path))


class PostgreSQLUpstoxStorage(Storage):
    """Tokens in PostgreSQL. Keys must be given, or be in the environment."""

    STORED = ("token", "user_id", "token_id", "expires_at")
    VALID = _COUNTED

    def __init__(
        self,
        connection_string: str,
        *,
        upstox: Provider | None = None,
        keys: KeyRing | None = None,
        clock: Clock | None = None,
    ) -> None:
        url = postgresql_url(connection_string)
        self._open(url, upstox=upstox, keys=keys, clock=clock, old=_old_tables(url))


class MongoUpstoxStorage(Storage):
    """Tokens in MongoDB. Keys must be given, or be in the environment."""

    STORED = ("token", "user_id", "token_id", "expires_at")
    VALID = _COUNTED

    def __init__(
        self,
        connection_string: str,
        database_name: str = "upstox_db",
        *,
        upstox: Provider | None = None,
        keys: KeyRing | None = None,
        clock: Clock | None = None,
    ) -> None:
        url = mongo_url(connection_string, database_name)
        self._open(url, upstox=upstox, keys=keys, clock=clock, old=_old_collection(url))


class HybridUpstoxStorage(Storage):
    """Tokens in PostgreSQL, with Redis in front. Keys must be given, or be in the environment.

    Args:
        redis_config: the keywords of `redis.Redis` that say where it is: host, port, db, username, password, ssl.
        postgres_config: a URL or a connection string.
    """

    STORED = ("token", "user_id", "user_name", "email", "created_at", "expires_at", "usage_count")
    VALID = STORED

    def __init__(
        self,
        redis_config: Mapping[str, Any],
        postgres_config: str,
        *,
        upstox: Provider | None = None,
        keys: KeyRing | None = None,
        clock: Clock | None = None,
    ) -> None:
        url, cache = postgresql_url(postgres_config), redis_url(redis_config)
        self._open(url, upstox=upstox, keys=keys, clock=clock, old=_old_tables(url), cache=cache)

    def store_token(self, user_id: str | None = None) -> dict[str, Any]:
        """Log in now and store the token; calls at the same time share one login."""
        return super().store_token(user_id)


class PooledUpstoxStorage(Storage):
    """Tokens in a SQLite file, for many threads.

    Args:
        pool_size: how many logins of a batch go side by side, each for another account.
    """

    def __init__(
        self,
        db_path: str | PathLike[str],
        pool_size: int = 5,
        *,
        upstox: Provider | None = None,
        keys: KeyRing | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._open(
            sqlite_url(db_path), upstox=upstox, keys=keys, clock=clock, old=SQLiteTable(db_path), concurrency=pool_size
        )


def _old_tables(url: str) -> Opening:
    def opening() -> AbstractContextManager[OldTokens]:
        from tokenkeep.upstox_storage._old_postgresql import PostgreSQLTables  # noqa: PLC0415  # its driver is an extra

        return PostgreSQLTables(url)()

    return opening


def _old_collection(url: str) -> Opening:
    def opening() -> AbstractContextManager[OldTokens]:
        from tokenkeep.upstox_storage._old_mongo import MongoCollection  # noqa: PLC0415  # its driver is an extra

        return MongoCollection(url)()

    return opening
