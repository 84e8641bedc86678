"""The tables, and how a time is kept in each database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ColumnClause,
    DateTime,
    Dialect,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    TypeDecorator,
    literal_column,
)
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.types import TypeEngine

SCHEMA_VERSION: Final = 1

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def to_microseconds(value: datetime) -> int:
    """Return microseconds since 1970-01-01 UTC, exactly."""
    return (value - _EPOCH) // _MICROSECOND


def from_microseconds(value: int) -> datetime:
    """Return the aware UTC time of `to_microseconds`."""
    return _EPOCH + timedelta(microseconds=value)


class Instant(TypeDecorator[datetime]):
    """An aware UTC time, to the microsecond, whatever the time zone of server, session and process.

    An integer on SQLite, `timestamptz` on PostgreSQL, `DATETIME(6)` in UTC on MariaDB.
    """

    impl = BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Choose the column type."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(DateTime(timezone=True))
        if dialect.name in {"mysql", "mariadb"}:
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(BigInteger())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Turn an aware time into what the column holds."""
        if value is None:
            return None
        if dialect.name == "postgresql":
            return value.astimezone(UTC)
        if dialect.name in {"mysql", "mariadb"}:
            return value.astimezone(UTC).replace(tzinfo=None)
        return to_microseconds(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:  # noqa: ARG002  # SQLAlchemy's hook
        """Turn what the column holds into an aware UTC time."""
        if value is None:
            return None
        if isinstance(value, datetime):
            return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        return from_microseconds(value)


def _text(length: int) -> String:
    """Text that is compared byte by byte in every database."""
    return String(length).with_variant(
        mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_nopad_bin"), "mysql", "mariadb"
    )


_Json: Final = JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
_Serial: Final = BigInteger().with_variant(Integer, "sqlite")
_LABEL: Final = 64
_USER: Final = 255


IN_PLACE: Final[ColumnClause[int]] = literal_column("1")
"""What `active` holds of a token in place: a literal, so that the partial index is recognised."""


class Tables:
    """The tables under one prefix and, where the database has them, in one schema."""

    def __init__(self, prefix: str = "tokenkeep_", schema: str | None = None) -> None:
        self.metadata = MetaData(schema=schema)
        self.meta = Table(
            f"{prefix}meta",
            self.metadata,
            Column("name", _text(_LABEL), primary_key=True),
            Column("value", _text(_USER), nullable=False),
        )
        self.key = Table(
            f"{prefix}key",
            self.metadata,
            Column("key_id", _text(_LABEL), primary_key=True),
            Column("check_value", LargeBinary(32), nullable=False),
            Column("created_at", Instant, nullable=False),
        )
        self.token = self._token(prefix)
        self.lease = self._lease(prefix)
        self.step = Table(
            f"{prefix}step",
            self.metadata,
            Column("account", LargeBinary(32).with_variant(mysql.VARBINARY(32), "mysql", "mariadb"), primary_key=True),
            Column("step", BigInteger, nullable=False),
        )
        self.audit = self._audit(prefix)
        self.issued = self._issued(prefix)

    def _token(self, prefix: str) -> Table:
        """Acquired tokens, those in place (`active` = 1) and their history (`active` is null)."""
        name = f"{prefix}token"
        table = Table(
            name,
            self.metadata,
            Column("id", _text(32), primary_key=True),
            *_account(),
            Column("kind", _text(_LABEL), nullable=False),
            Column("version", BigInteger, nullable=False),
            Column("active", SmallInteger),
            Column("access_sealed", LargeBinary(2**24)),
            Column("refresh_sealed", LargeBinary(2**24)),
            Column("key_id", _text(_LABEL), nullable=False),
            Column("token_type", _text(_LABEL), nullable=False),
            Column("scope", _Json, nullable=False),
            Column("created_at", Instant, nullable=False),
            Column("expires_at", Instant),
            Column("rejected_at", Instant),
            Column("ended_at", Instant),
            Column("end_reason", _text(_LABEL)),
            Column("last_used_at", Instant),
            Column("usage_count", BigInteger, nullable=False),
            Column("profile", _Json, nullable=False),
            Column("metadata", _Json, nullable=False),
        )
        c = table.c
        slot = (c.namespace, c.provider, c.user_id, c.kind)
        in_place = c.active == IN_PLACE
        # One token in place for each slot: partial where the database can, elsewhere nulls are distinct.
        Index(f"{name}_active", *slot, c.active, unique=True, sqlite_where=in_place, postgresql_where=in_place)
        Index(f"{name}_version", *slot, c.version, unique=True)
        Index(f"{name}_created", c.namespace, c.created_at)
        Index(f"{name}_key", c.key_id, c.id)
        return table

    def _lease(self, prefix: str) -> Table:
        """Single-flight. `until` and `retry_at` are microseconds of the database's own clock."""
        return Table(
            f"{prefix}lease",
            self.metadata,
            *_account(primary_key=True),
            Column("owner", _text(_USER)),
            Column("fence", BigInteger, nullable=False),
            Column("until", BigInteger, nullable=False),
            Column("begun", BigInteger),
            Column("fingerprint", LargeBinary(32)),
            Column("failures", Integer, nullable=False),
            Column("failed_fence", BigInteger),
            Column("failure", _text(_LABEL)),
            Column("reason", Text, nullable=False),
            Column("retry_at", BigInteger),
        )

    def _audit(self, prefix: str) -> Table:
        """The trail. It refers to tokens by id without a foreign key, because it outlives them."""
        name = f"{prefix}audit"
        table = Table(
            name,
            self.metadata,
            Column("id", _Serial, primary_key=True, autoincrement=True),
            Column("namespace", _text(_LABEL), nullable=False),
            Column("provider", _text(_LABEL)),
            Column("user_id", _text(_USER), nullable=False),
            Column("action", _text(_LABEL), nullable=False),
            Column("token_id", _text(32)),
            Column("at", Instant, nullable=False),
            Column("actor", _text(_USER), nullable=False),
            Column("detail", _Json, nullable=False),
            sqlite_autoincrement=True,
        )
        Index(f"{name}_user", table.c.namespace, table.c.user_id, table.c.id)
        return table

    def _issued(self, prefix: str) -> Table:
        """Issued tokens, by the 16-byte id that is derived from the token. No token stands here.

        `access_lifetime`, in microseconds, is what marks a refresh token.
        """
        name = f"{prefix}issued"
        table = Table(
            name,
            self.metadata,
            Column("id", LargeBinary(16).with_variant(mysql.BINARY(16), "mysql", "mariadb"), primary_key=True),
            Column("digest", LargeBinary(32).with_variant(mysql.BINARY(32), "mysql", "mariadb"), nullable=False),
            Column("key_id", _text(_LABEL)),
            Column("namespace", _text(_LABEL), nullable=False),
            Column("user_id", _text(_USER), nullable=False),
            Column("name", _text(_USER)),
            Column("scopes", Text, nullable=False),
            Column("created_at", Instant, nullable=False),
            Column("expires_at", Instant, nullable=False),
            Column("client", _text(_USER)),
            Column("metadata", _Json),
            Column("last_used_at", Instant),
            Column("usage_count", BigInteger, nullable=False),
            Column("revoked_at", Instant),
            # What hangs together by refreshing; all null where no refresh token was asked for.
            Column("family", LargeBinary(16).with_variant(mysql.BINARY(16), "mysql", "mariadb")),
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


def _account(*, primary_key: bool = False) -> list[Column[Any]]:
    return [
        Column("namespace", _text(_LABEL), primary_key=primary_key, nullable=False),
        Column("provider", _text(_LABEL), primary_key=primary_key, nullable=False),
        Column("user_id", _text(_USER), primary_key=primary_key, nullable=False),
    ]
