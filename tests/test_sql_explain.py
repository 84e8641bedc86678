"""No query reads a whole table: EXPLAIN of every statement that the rooms of a store hold."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import ClauseElement, Connection, Executable, create_engine, text

from servers.common import Database as Fresh
from servers.postgres import Postgres
from tokenkeep.stores.sql.backend import sql_backend
from tokenkeep.stores.sql.engine import EngineDatabase

ROWS = 60_000

WHOLE = {
    "_known": "all check values of the keys: one row a key",
    "_sealed": "for rotation: all rows under the keys that are to go",
    "_digests": "for people: what each key is used for",
}
"""(attribute -> why it may read a whole table)"""

FILL = """
INSERT INTO tokenkeep_token (id, namespace, provider, user_id, kind, version, active, access_sealed, key_id, token_type,
    scope, created_at, expires_at, ended_at, usage_count, profile, metadata)
SELECT md5(i::text), 'ns' || i % 20, 'p', 'user ' || i / 4, 'access', i % 4, CASE WHEN i % 4 = 3 THEN 1 END,
    CASE WHEN i % 4 = 3 THEN '\\x00'::bytea END, 'key' || i % 3, 'Bearer', '[]', now() - i * interval '1 minute',
    now() + i * interval '1 minute', CASE WHEN i % 4 < 3 THEN now() - i * interval '1 minute' END, 0, '{}', '{}'
FROM generate_series(1, :rows) i;
INSERT INTO tokenkeep_lease (namespace, provider, user_id, fence, until, failures, reason)
SELECT 'ns' || i % 20, 'p', 'user ' || i, 0, 0, 0, '' FROM generate_series(1, :rows) i;
INSERT INTO tokenkeep_step (account, step) SELECT sha256(i::text::bytea), i FROM generate_series(1, :rows) i;
INSERT INTO tokenkeep_audit (namespace, provider, user_id, action, at, actor, detail)
SELECT 'ns' || i % 20, 'p', 'user ' || i / 4, 'used', now() - i * interval '1 minute', 'me', '{}'
FROM generate_series(1, :rows) i;
INSERT INTO tokenkeep_issued (id, digest, namespace, user_id, scopes, created_at, expires_at, usage_count, family)
SELECT decode(md5(i::text), 'hex'), sha256(i::text::bytea), 'ns' || i % 20, 'user ' || i / 4, '', now(),
    now() + (i - :rows / 2) * interval '1 minute', 0, CASE WHEN i % 3 = 0 THEN decode(md5((i / 6)::text), 'hex') END
FROM generate_series(1, :rows) i;
"""


@pytest.fixture(scope="module")
def database(postgres_server: Postgres) -> Iterator[Fresh]:
    database = postgres_server.database()
    yield database
    postgres_server.drop(database)


@pytest.fixture(scope="module")
def backend(database: Fresh) -> Iterator[Any]:
    engine = create_engine(database.url.replace("postgresql://", "postgresql+psycopg://"))
    yield sql_backend(EngineDatabase(engine, name="the test"), actor="test")
    engine.dispose()


@pytest.fixture(scope="module")
def filled(backend: Any) -> Iterator[Connection]:
    engine = backend.health._database.engine
    backend.health._tables.metadata.create_all(engine)
    with engine.connect() as connection:
        for statement in FILL.split(";\n"):
            if statement.strip():
                connection.execute(text(statement.replace(":rows", str(ROWS))))
        connection.commit()
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("VACUUM ANALYZE"))
        yield connection


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
    "keys": ["key1"], "old_key": "key1", "seen": 1, "old": b"\x01" * 32, "skipped": 10,
}  # fmt: skip


def plan(connection: Connection, name: str, statement: Any) -> str:
    compiled = statement.compile(dialect=connection.dialect, compile_kwargs={"render_postcompile": True})
    given = {parameter: VALUES.get(parameter, value) for parameter, value in compiled.params.items()}
    if name == "SqlIssued._redigest":
        given["key"] = "key1"
    if name.startswith("SqlLeases"):
        given |= {key: 5 for key in ("after", "upto") if key in given}
    if name.startswith("SqlTokens"):
        given |= {key: "8" * 32 for key in ("token_id", "after") if key in given}
    bound = compiled.construct_params({**given})
    processed = {
        key: process(value) if (process := compiled._bind_processors.get(key)) and value is not None else value
        for key, value in bound.items()
    }
    cursor = connection.connection.cursor()
    cursor.execute(f"EXPLAIN {compiled}", processed)
    lines = "\n".join(row[0] for row in cursor.fetchall())
    cursor.close()
    return lines


@pytest.mark.requirement("D5")
def test_no_statement_reads_a_whole_table(filled: Connection, backend: Any) -> None:
    found = statements(backend)
    assert len(found) > 40
    scanning = {
        name: plan(filled, name, statement)
        for name, statement in found.items()
        if name.rpartition(".")[2] not in WHOLE and "Insert" not in type(statement).__name__
    }
    scans = {name: lines for name, lines in scanning.items() if "Seq Scan" in lines and not small(lines)}
    assert not scans, "\n\n".join(f"{name}:\n{lines}" for name, lines in scans.items())


def small(lines: str) -> bool:
    """Tell whether what is read whole is a table of a few rows."""
    return all("tokenkeep_meta" in line or "tokenkeep_key" in line for line in lines.splitlines() if "Seq Scan" in line)
