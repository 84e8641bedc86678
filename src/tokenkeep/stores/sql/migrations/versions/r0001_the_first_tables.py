"""The first tables.

Frozen: `schema.py` may go on, this may not. Its types are those of `types.py`, which never change what they mean.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, SmallInteger, Table, literal_column

from tokenkeep.stores.sql.migrations.steps import create, naming
from tokenkeep.stores.sql.types import Instant, Json, Prose, Word, blob, octets

revision: Final = "0001"
down_revision: Final = None


def upgrade() -> None:
    """Create them all."""
    names = naming()
    create(first_tables(names.prefix, names.schema))


def first_tables(prefix: str, schema: str | None) -> MetaData:
    """Return the tables of schema version 1."""
    metadata = MetaData(schema=schema)
    for name, columns in (("meta", _meta), ("key", _key), ("lease", _lease), ("step", _step)):
        _table(metadata, f"{prefix}{name}", columns())
    _token(metadata, f"{prefix}token")
    audit = _table(metadata, f"{prefix}audit", _audit(), sqlite_autoincrement=True)
    Index(f"{prefix}audit_user", audit.c.namespace, audit.c.user_id, audit.c.id)
    _issued(metadata, f"{prefix}issued")
    return metadata


def _table(metadata: MetaData, name: str, columns: list[Column[Any]], **options: Any) -> Table:
    innodb: dict[str, Any] = {
        f"{dialect}_{option}": value
        for dialect in ("mysql", "mariadb")
        for option, value in (("engine", "InnoDB"), ("charset", "utf8mb4"))
    }
    return Table(name, metadata, *columns, **innodb, **options)


def _account(*, primary_key: bool = False) -> list[Column[Any]]:
    return [
        Column("namespace", Word(64), primary_key=primary_key, nullable=False),
        Column("provider", Word(64), primary_key=primary_key, nullable=False),
        Column("user_id", Word(255), primary_key=primary_key, nullable=False),
    ]


def _meta() -> list[Column[Any]]:
    return [Column("name", Word(64), primary_key=True), Column("value", Word(255), nullable=False)]


def _key() -> list[Column[Any]]:
    return [
        Column("key_id", Word(64), primary_key=True),
        Column("check_value", LargeBinary(32), nullable=False),
        Column("created_at", Instant, nullable=False),
    ]


def _lease() -> list[Column[Any]]:
    return [
        *_account(primary_key=True),
        Column("owner", Word(255)),
        Column("fence", BigInteger, nullable=False),
        Column("until", BigInteger, nullable=False),
        Column("begun", BigInteger),
        Column("fingerprint", LargeBinary(32)),
        Column("failures", Integer, nullable=False),
        Column("failed_fence", BigInteger),
        Column("failure", Word(64)),
        Column("reason", Prose, nullable=False),
        Column("retry_at", BigInteger),
    ]


def _step() -> list[Column[Any]]:
    return [Column("account", octets(32), primary_key=True), Column("step", BigInteger, nullable=False)]


def _audit() -> list[Column[Any]]:
    return [
        Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
        Column("namespace", Word(64), nullable=False),
        Column("provider", Word(64)),
        Column("user_id", Word(255), nullable=False),
        Column("action", Word(64), nullable=False),
        Column("token_id", Word(32)),
        Column("at", Instant, nullable=False),
        Column("actor", Word(255), nullable=False),
        Column("detail", Json(), nullable=False),
    ]


def _token(metadata: MetaData, name: str) -> None:
    c = _table(
        metadata,
        name,
        [
            Column("id", Word(32), primary_key=True),
            *_account(),
            Column("kind", Word(64), nullable=False),
            Column("version", BigInteger, nullable=False),
            Column("active", SmallInteger),
            Column("access_sealed", blob()),
            Column("refresh_sealed", blob()),
            Column("key_id", Word(64), nullable=False),
            Column("token_type", Word(64), nullable=False),
            Column("scope", Json(), nullable=False),
            Column("created_at", Instant, nullable=False),
            Column("expires_at", Instant),
            Column("rejected_at", Instant),
            Column("ended_at", Instant),
            Column("end_reason", Word(64)),
            Column("last_used_at", Instant),
            Column("usage_count", BigInteger, nullable=False),
            Column("profile", Json(), nullable=False),
            Column("metadata", Json(), nullable=False),
        ],
    ).c
    slot = (c.namespace, c.provider, c.user_id, c.kind)
    in_place = c.active == literal_column("1")
    Index(f"{name}_active", *slot, c.active, unique=True, sqlite_where=in_place, postgresql_where=in_place)
    Index(f"{name}_version", *slot, c.version, unique=True)
    Index(f"{name}_created", c.namespace, c.created_at)
    Index(f"{name}_key", c.key_id, c.id)


def _issued(metadata: MetaData, name: str) -> None:
    c = _table(
        metadata,
        name,
        [
            Column("id", octets(16), primary_key=True),
            Column("digest", octets(32), nullable=False),
            Column("key_id", Word(64)),
            Column("namespace", Word(64), nullable=False),
            Column("user_id", Word(255), nullable=False),
            Column("name", Word(255)),
            Column("scopes", Prose, nullable=False),
            Column("created_at", Instant, nullable=False),
            Column("expires_at", Instant, nullable=False),
            Column("client", Word(255)),
            Column("metadata", Json()),
            Column("last_used_at", Instant),
            Column("usage_count", BigInteger, nullable=False),
            Column("revoked_at", Instant),
            Column("family", octets(16)),
            Column("generation", Integer),
            Column("access_lifetime", BigInteger),
            Column("spent_at", Instant),
            Column("successors", SmallInteger),
        ],
        sqlite_with_rowid=False,
    ).c
    Index(f"{name}_user", c.namespace, c.user_id)
    related = c.family.is_not(None)
    Index(f"{name}_family", c.family, sqlite_where=related, postgresql_where=related)
