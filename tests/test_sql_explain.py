"""No query reads a whole table of a million rows: EXPLAIN of every statement that the rooms of a store hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import ClauseElement, Connection, Executable, create_engine, text
from sqlalchemy.schema import CreateTable

from servers.common import Database as Fresh
from servers.mariadb import MariaDB
from servers.postgres import Postgres
from tokenkeep.stores.sql.backend import sql_backend
from tokenkeep.stores.sql.servers.engine import EngineDatabase

ROWS = 1_000_000
MARIADB_ROWS = 100_000
"""Filling takes MariaDB much longer; its optimiser goes by the statistics of the indexes."""

WHOLE = {
    "_known": "all check values of the keys: one row a key",
    "_sealed": "for rotation: all rows under the keys that are to go",
    "_digests": "for people: what each key is used for",
    "_count": "for the progress of a check of all that there is",
    "_unvouched": "for rotation: the heads for which the newest key does not vouch yet",
}
"""(attribute -> why it may read a whole table)"""

MARIADB_WALKS = ("_spent", "_dead", "_oldest")
"""For a purge: by the key in its order, to the end of the batch, which MariaDB believes to be near."""

FILL = """
INSERT INTO tokenkeep_token (id, namespace, provider, user_id, kind, version, active, access_sealed, key_id, token_type,
    scope, created_at, expires_at, ended_at, usage_count, profile, metadata)
SELECT rpad(lpad(to_hex(i * 4294::bigint), 8, '0'), 32, '0'), 'ns' || i % 20, 'p', 'user ' || i / 4, 'access', i % 4,
    CASE WHEN i % 4 = 3 THEN 1 END, CASE WHEN i % 4 = 3 THEN '\\x00'::bytea END, 'key' || i % 3, 'Bearer', '[]',
    now() - i * interval '1 minute',
    now() + i * interval '1 minute', CASE WHEN i % 4 < 3 THEN now() - i * interval '1 minute' END, 0, '{}', '{}'
FROM generate_series(1, :rows) i;
INSERT INTO tokenkeep_lease (namespace, provider, user_id, fence, until, failures, reason)
SELECT 'ns' || i % 20, 'p', 'user ' || i, 0, 0, 0, '' FROM generate_series(1, :rows) i;
INSERT INTO tokenkeep_step (account, step)
SELECT decode(rpad(lpad(to_hex(i * 4294::bigint), 8, '0'), 64, '0'), 'hex'), i
FROM generate_series(1, :rows) i;
INSERT INTO tokenkeep_audit (namespace, provider, user_id, action, at, actor, detail)
SELECT 'ns' || i % 20, 'p', 'user ' || i / 4, 'used', now() - i * interval '1 minute', 'me', '{}'
FROM generate_series(1, :rows) i;
INSERT INTO tokenkeep_audit_head (namespace, user_id, sequence, digest, vouched, vouched_digest, purged, purged_digest)
SELECT 'ns' || i % 20, 'user ' || i, 1, '\\x00', 0, '\\x00', 0, '\\x00' FROM generate_series(1, :rows / 4) i;
INSERT INTO tokenkeep_issued (id, digest, namespace, user_id, scopes, created_at, expires_at, usage_count, family)
SELECT decode(rpad(lpad(to_hex(i * 4294::bigint), 8, '0'), 32, '0'), 'hex'), '\\x00', 'ns' || i % 20,
    'user ' || i / 4, '', now(), now() + (i - :rows / 2) * interval '1 minute', 0,
    CASE WHEN i % 3 = 0 THEN decode(md5((i / 6)::text), 'hex') END
FROM generate_series(1, :rows) i;
"""


MARIADB_FILL = """
INSERT INTO tokenkeep_token (id, namespace, provider, user_id, kind, version, active, access_sealed, key_id, token_type,
    scope, created_at, expires_at, ended_at, usage_count, profile, metadata)
SELECT rpad(lpad(hex(seq * 42949), 8, '0'), 32, '0'), concat('ns', seq % 20), 'p', concat('user ', seq DIV 4), 'access',
    seq % 4, if(seq % 4 = 3, 1, NULL), if(seq % 4 = 3, 0x00, NULL), concat('key', seq % 3), 'Bearer', '[]',
    now() - INTERVAL seq MINUTE,
    now() + INTERVAL seq MINUTE, if(seq % 4 < 3, now() - INTERVAL seq MINUTE, NULL), 0, '{}', '{}'
FROM seq_1_to_:rows;
INSERT INTO tokenkeep_lease (namespace, provider, user_id, fence, until, failures, reason)
SELECT concat('ns', seq % 20), 'p', concat('user ', seq), 0, 0, 0, '' FROM seq_1_to_:rows;
INSERT INTO tokenkeep_step (account, step)
SELECT unhex(rpad(lpad(hex(seq * 42949), 8, '0'), 64, '0')), seq FROM seq_1_to_:rows;
INSERT INTO tokenkeep_audit (namespace, provider, user_id, action, at, actor, detail)
SELECT concat('ns', seq % 20), 'p', concat('user ', seq DIV 4), 'used', now() - INTERVAL seq MINUTE, 'me', '{}'
FROM seq_1_to_:rows;
INSERT INTO tokenkeep_audit_head (namespace, user_id, sequence, digest, vouched, vouched_digest, purged, purged_digest)
SELECT concat('ns', seq % 20), concat('user ', seq), 1, 0x00, 0, 0x00, 0, 0x00 FROM seq_1_to_:rows;
INSERT INTO tokenkeep_issued (id, digest, namespace, user_id, scopes, created_at, expires_at, usage_count, family)
SELECT unhex(rpad(lpad(hex(seq * 42949), 8, '0'), 32, '0')), 0x00, concat('ns', seq % 20), concat('user ', seq DIV 4),
    '', now(), now() + INTERVAL (CAST(seq AS INT) - :rows DIV 2) MINUTE, 0, if(seq % 3 = 0, unhex(md5(seq DIV 6)), NULL)
FROM seq_1_to_:rows;
ANALYZE TABLE tokenkeep_token, tokenkeep_lease, tokenkeep_step, tokenkeep_audit, tokenkeep_audit_head,
    tokenkeep_issued
"""


def opened(database: Fresh, driver: str) -> Iterator[Any]:
    scheme = database.url.partition("://")[0]
    engine = create_engine(database.url.replace(f"{scheme}://", f"{scheme}+{driver}://"))
    yield sql_backend(EngineDatabase(engine, name="the test"), actor="test")
    engine.dispose()


@pytest.fixture(scope="module")
def backend(postgres_server: Postgres) -> Iterator[Any]:
    database = postgres_server.database()
    yield from opened(database, "psycopg")
    postgres_server.drop(database)


@pytest.fixture(scope="module")
def mariadb_backend(mariadb_server: MariaDB) -> Iterator[Any]:
    database = mariadb_server.database()
    yield from opened(database, "pymysql")
    mariadb_server.drop(database)


@pytest.fixture(scope="module")
def filled(backend: Any) -> Iterator[Connection]:
    """PostgreSQL, without a log and with the indexes made afterwards: that halves the time."""
    with connected(backend) as connection:
        tables = backend.health._tables.metadata.sorted_tables
        for table in tables:
            connection.execute(CreateTable(table))
            connection.execute(text(f"ALTER TABLE {table.name} SET UNLOGGED"))
        connection.execute(text("SET maintenance_work_mem = '128MB'"))
        fill(connection, FILL, ROWS)
        for table in tables:
            for index in table.indexes:
                index.create(connection)
        connection.execute(text("ANALYZE"))
        yield connection


@pytest.fixture(scope="module")
def mariadb_filled(mariadb_backend: Any) -> Iterator[Connection]:
    with connected(mariadb_backend) as connection:
        for table in mariadb_backend.health._tables.metadata.sorted_tables:
            table.create(connection)
        fill(connection, MARIADB_FILL, MARIADB_ROWS)
        yield connection


def connected(backend: Any) -> Any:
    engine = backend.health._database.engine
    return engine.execution_options(isolation_level="AUTOCOMMIT").connect()


def fill(connection: Connection, script: str, rows: int) -> None:
    for statement in script.split(";\n"):
        if statement.strip():
            connection.execute(text(statement.replace(":rows", str(rows)).replace("::", r"\:\:")))


def statements(backend: Any) -> dict[str, Executable]:
    rooms = (backend.tokens, backend.leases, backend.issued, backend.audit, backend.keys, backend.health)
    return {
        f"{type(room).__name__}.{name}": value
        for room in rooms
        for name, value in vars(room).items()
        if isinstance(value, ClauseElement) and isinstance(value, Executable)
    }


VALUES: dict[str, Any] = {
    "ns": "ns7", "pr": "p", "us": "user 77", "namespace": "ns7", "user_id": "user 77", "kind": "access",
    "of_kind": "access", "count": 100, "after": b"\x80" * 16, "token_id": b"\x81" * 16, "kin": b"\x82" * 16,
    "keep": b"", "upto": b"\x81" * 16, "gen": 1, "me": "me", "my_fence": 1, "now": 1, "ttl": 1, "key": b"\x01" * 32,
    "before": datetime.now(UTC) - timedelta(days=39), "at": datetime.now(UTC), "n": "schema_version", "id": "key1",
    "start": datetime.now(UTC) - timedelta(hours=3), "end": datetime.now(UTC) - timedelta(hours=2),
    "expired": datetime.now(UTC) - timedelta(days=39), "ended": datetime.now(UTC) - timedelta(days=39),
    "event": 1, "past": 5, "seen_purged": 0, "newest": "key1", "users": ["user 77", "user 78"],
    "keys": ["key1"], "old_key": "key1", "seen": 1, "old": b"\x01" * 32, "skipped": 10,
}  # fmt: skip


def asked(connection: Connection, name: str, statement: Any) -> tuple[Any, Any]:
    """Return the EXPLAIN of a statement, and its parameters as the driver takes them."""
    compiled = statement.compile(dialect=connection.dialect)
    given = {parameter: VALUES.get(parameter, value) for parameter, value in compiled.params.items()}
    if name == "SqlIssued._redigest":
        given["key"] = "key1"
    if name == "SqlIssued._boundary":
        given["end"] = b"\x81"
    if name == "SqlAudit._users":
        given["after"] = "user 77"
    if name.startswith("SqlLeases"):
        given |= {key: 5 for key in ("after", "upto") if key in given}
    if name.startswith("SqlTokens"):
        given |= {key: "8" * 32 for key in ("token_id", "after") if key in given}
    written = compiled.construct_expanded_state({**given})
    processors = {**compiled._bind_processors, **written.processors}
    processed = {
        key: process(value) if (process := processors.get(key)) and value is not None else value
        for key, value in written.parameters.items()
    }
    return f"EXPLAIN {written.statement}", processed


def rows_of(connection: Connection, name: str, statement: Any) -> list[Any]:
    cursor = connection.connection.cursor()
    cursor.execute(*asked(connection, name, statement))
    rows = list(cursor.fetchall())
    cursor.close()
    return rows


def explained(backend: Any, connection: Connection, show: Callable[[list[Any]], str]) -> dict[str, str]:
    found = statements(backend)
    assert len(found) > 40
    return {
        name: show(rows_of(connection, name, statement))
        for name, statement in found.items()
        if name.rpartition(".")[2] not in WHOLE and "Insert" not in type(statement).__name__
    }


@pytest.mark.requirement("D5")
def test_no_statement_reads_a_whole_table(filled: Connection, backend: Any) -> None:
    plans = explained(backend, filled, lambda rows: "\n".join(row[0] for row in rows))
    scans = {name: lines for name, lines in plans.items() if "Seq Scan" in lines and not small(lines)}
    assert not scans, "\n\n".join(f"{name}:\n{lines}" for name, lines in scans.items())


def small(lines: str) -> bool:
    """Tell whether what is read whole is a table of a few rows."""
    return all("tokenkeep_meta" in line or "tokenkeep_key" in line for line in lines.splitlines() if "Seq Scan" in line)


@pytest.mark.requirement("D5")
def test_no_statement_reads_a_whole_table_of_mariadb(mariadb_filled: Connection, mariadb_backend: Any) -> None:
    plans = explained(mariadb_backend, mariadb_filled, lambda rows: "\n".join(map(str, rows)))
    scans = {
        name: lines
        for name, lines in plans.items()
        if reads_all(lines) and not (name.endswith(MARIADB_WALKS) and "'PRIMARY'" in lines and "'ALL'" not in lines)
    }
    assert not scans, "\n\n".join(f"{name}:\n{lines}" for name, lines in scans.items())


def reads_all(lines: str) -> bool:
    """Tell whether a large table is read whole: by its rows (ALL) or by an index from end to end (index)."""
    small = ("tokenkeep_meta", "tokenkeep_key'", "<derived", "<union")  # the last two are what a part of it has found
    return any(
        ("'ALL'" in line or "'index'" in line) and not any(name in line for name in small)
        for line in lines.splitlines()
    )
