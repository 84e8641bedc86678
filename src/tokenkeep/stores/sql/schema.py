"""The tables."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnClause,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    literal_column,
)

from tokenkeep.stores.sql.types import MARIADB, Instant, Json, Prose, Word, blob, octets

SCHEMA_VERSION: Final = 3

_Serial: Final = BigInteger().with_variant(Integer, "sqlite")
_LABEL: Final = 64
_USER: Final = 255
_INNODB: Final[dict[str, Any]] = {
    f"{dialect}_{option}": value
    for dialect in MARIADB
    for option, value in (("engine", "InnoDB"), ("charset", "utf8mb4"))
}


IN_PLACE: Final[ColumnClause[int]] = literal_column("1")
"""What `active` holds of a token in place: a literal, so that the partial index is recognised."""


class Tables:
    """The tables under one prefix and, where the database has them, in one schema."""

    def __init__(self, prefix: str = "tokenkeep_", schema: str | None = None) -> None:
        self.metadata = MetaData(schema=schema)
        self.meta = self._table(
            f"{prefix}meta",
            Column("name", Word(_LABEL), primary_key=True),
            Column("value", Word(_USER), nullable=False),
        )
        self.key = self._table(
            f"{prefix}key",
            Column("key_id", Word(_LABEL), primary_key=True),
            Column("check_value", LargeBinary(32), nullable=False),
            Column("created_at", Instant, nullable=False),
        )
        self.token = self._token(prefix)
        self.lease = self._lease(prefix)
        self.step = self._table(
            f"{prefix}step",
            Column("account", octets(32), primary_key=True),
            Column("step", BigInteger, nullable=False),
        )
        self.audit = self._audit(prefix)
        self.audit_head = self._audit_head(prefix)
        self.issued = self._issued(prefix)

    def _table(self, name: str, *columns: Column[Any], **options: Any) -> Table:
        return Table(name, self.metadata, *columns, **_INNODB, **options)

    def _token(self, prefix: str) -> Table:
        """Acquired tokens, those in place (`active` = 1) and their history (`active` is null)."""
        name = f"{prefix}token"
        table = self._table(
            name,
            Column("id", Word(32), primary_key=True),
            *_account(),
            Column("kind", Word(_LABEL), nullable=False),
            Column("version", BigInteger, nullable=False),
            Column("active", SmallInteger),
            Column("access_sealed", blob()),
            Column("refresh_sealed", blob()),
            Column("key_id", Word(_LABEL), nullable=False),
            Column("token_type", Word(_LABEL), nullable=False),
            Column("scope", Json(), nullable=False),
            Column("created_at", Instant, nullable=False),
            Column("expires_at", Instant),
            Column("rejected_at", Instant),
            Column("ended_at", Instant),
            Column("end_reason", Word(_LABEL)),
            # Of a token that has ended here and keeps its secrets: when its provider is next told to end it too.
            Column("revoke_at", Instant),
            Column("last_used_at", Instant),
            Column("usage_count", BigInteger, nullable=False),
            Column("profile", Json(), nullable=False),
            Column("metadata", Json(), nullable=False),
        )
        c = table.c
        slot = (c.namespace, c.provider, c.user_id, c.kind)
        in_place = c.active == IN_PLACE
        # One token in place for each slot: partial where the database can, elsewhere nulls are distinct.
        Index(f"{name}_active", *slot, c.active, unique=True, sqlite_where=in_place, postgresql_where=in_place)
        Index(f"{name}_version", *slot, c.version, unique=True)
        Index(f"{name}_created", c.namespace, c.created_at)
        Index(f"{name}_key", c.key_id, c.id)
        wished = c.revoke_at.is_not(None)
        Index(f"{name}_revoke", c.revoke_at, c.namespace, sqlite_where=wished, postgresql_where=wished)
        return table

    def _lease(self, prefix: str) -> Table:
        """Single-flight. `until` and `retry_at` are microseconds of the database's own clock."""
        return self._table(
            f"{prefix}lease",
            *_account(primary_key=True),
            Column("owner", Word(_USER)),
            Column("fence", BigInteger, nullable=False),
            Column("until", BigInteger, nullable=False),
            Column("begun", BigInteger),
            Column("fingerprint", LargeBinary(32)),
            Column("failures", Integer, nullable=False),
            Column("failed_fence", BigInteger),
            Column("failure", Word(_LABEL)),
            Column("reason", Prose, nullable=False),
            Column("retry_at", BigInteger),
        )

    def _audit(self, prefix: str) -> Table:
        """The trail. It refers to tokens by id without a foreign key, because it outlives them."""
        name = f"{prefix}audit"
        table = self._table(
            name,
            Column("id", _Serial, primary_key=True, autoincrement=True),
            Column("namespace", Word(_LABEL), nullable=False),
            Column("provider", Word(_LABEL)),
            Column("user_id", Word(_USER), nullable=False),
            Column("action", Word(_LABEL), nullable=False),
            Column("token_id", Word(32)),
            Column("at", Instant, nullable=False),
            Column("actor", Word(_USER), nullable=False),
            Column("detail", Json(), nullable=False),
            # Its place in the chain of its user; null for what was written before there were chains.
            Column("sequence", BigInteger),
            Column("digest", octets(32)),
            *_proof(),
            sqlite_autoincrement=True,
        )
        Index(f"{name}_user", table.c.namespace, table.c.user_id, table.c.id)
        return table

    def _audit_head(self, prefix: str) -> Table:
        """One row a chain: its last event, the last that a rotation vouched for, and the last that a purge deleted."""
        return self._table(
            f"{prefix}audit_head",
            Column("namespace", Word(_LABEL), primary_key=True),
            Column("user_id", Word(_USER), primary_key=True),
            Column("sequence", BigInteger, nullable=False),
            Column("digest", octets(32), nullable=False),
            Column("vouched", BigInteger, nullable=False),
            Column("vouched_digest", octets(32), nullable=False),
            *_proof("vouched_"),
            Column("purged", BigInteger, nullable=False),
            Column("purged_digest", octets(32), nullable=False),
            *_proof("purged_"),
        )

    def _issued(self, prefix: str) -> Table:
        """Issued tokens, by the 16-byte id that is derived from the token. No token stands here.

        `access_lifetime`, in microseconds, is what marks a refresh token.
        """
        name = f"{prefix}issued"
        table = self._table(
            name,
            Column("id", octets(16), primary_key=True),
            Column("digest", octets(32), nullable=False),
            Column("key_id", Word(_LABEL)),
            Column("namespace", Word(_LABEL), nullable=False),
            Column("user_id", Word(_USER), nullable=False),
            Column("name", Word(_USER)),
            Column("scopes", Prose, nullable=False),
            Column("created_at", Instant, nullable=False),
            Column("expires_at", Instant, nullable=False),
            Column("client", Word(_USER)),
            Column("metadata", Json()),
            Column("last_used_at", Instant),
            Column("usage_count", BigInteger, nullable=False),
            Column("revoked_at", Instant),
            # What hangs together by refreshing; all null where no refresh token was asked for.
            Column("family", octets(16)),
            Column("generation", Integer),
            Column("access_lifetime", BigInteger),
            Column("spent_at", Instant),
            Column("successors", SmallInteger),
            sqlite_with_rowid=False,
        )
        c = table.c
        Index(f"{name}_user", c.namespace, c.user_id)
        related = c.family.is_not(None)
        Index(f"{name}_family", c.family, sqlite_where=related, postgresql_where=related)
        return table


def _proof(prefix: str = "") -> list[Column[Any]]:
    return [Column(f"{prefix}proof", octets(32)), Column(f"{prefix}key_id", Word(_LABEL))]


def _account(*, primary_key: bool = False) -> list[Column[Any]]:
    return [
        Column("namespace", Word(_LABEL), primary_key=primary_key, nullable=False),
        Column("provider", Word(_LABEL), primary_key=primary_key, nullable=False),
        Column("user_id", Word(_USER), primary_key=primary_key, nullable=False),
    ]
