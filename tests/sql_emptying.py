"""One database for the tests of a module: emptied after each, which takes less time than a new one."""

from __future__ import annotations

import time
from collections.abc import Iterator

from servers.common import Database
from servers.mariadb import MariaDB
from servers.postgres import Postgres

PATIENCE = 5.0
TABLES = ("token", "lease", "step", "audit", "audit_head", "issued", "key")
EMPTY = tuple(f"DELETE FROM tokenkeep_{table}" for table in TABLES)  # noqa: S608  # our own names

POSTGRES_OTHERS = "SELECT state FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
MARIADB_OTHERS = "SELECT command FROM information_schema.processlist WHERE db = database() AND id <> connection_id()"


def used_in_postgres(server: Postgres, database: Database) -> Iterator[str]:
    """Give the URL; afterwards nobody is connected any more, and the tables are empty."""
    yield database.url
    with server.connect(database.name) as connection:
        end = time.monotonic() + PATIENCE
        while (others := connection.execute(POSTGRES_OTHERS).fetchall()) and time.monotonic() < end:
            time.sleep(0.005)
        assert others == [], "a connection was left open"
        if connection.execute("SELECT to_regclass('tokenkeep_meta')").fetchone() != (None,):
            connection.execute("; ".join(EMPTY).encode())


def used_in_mariadb(server: MariaDB, database: Database) -> Iterator[str]:
    """Give the URL; afterwards nobody is connected any more, and the tables are empty."""
    yield database.url
    with server.connect(database.name) as connection, connection.cursor() as cursor:
        end = time.monotonic() + PATIENCE
        while (others := cursor.execute(MARIADB_OTHERS)) and time.monotonic() < end:
            time.sleep(0.005)
        assert others == 0, "a connection was left open"
        if cursor.execute("SHOW TABLES LIKE 'tokenkeep_meta'"):
            for statement in EMPTY:
                cursor.execute(statement)
