"""Column types. A token is digested on its way into the database, whoever sends it there."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any, ClassVar, override

from sqlalchemy import CHAR, TIMESTAMP, Dialect, String
from sqlalchemy.dialects.mysql import VARCHAR as MYSQL_VARCHAR
from sqlalchemy.dialects.postgresql import UUID
from sqlalchemy.types import TypeDecorator, TypeEngine

from tokenkeep.marked import marked_digest


class AtRest(str):
    """What stood in the database: a marked digest, or a token in clear from before. Never made of outside text."""

    __slots__ = ()


class TokenAtRest(TypeDecorator[str]):
    """The column of a token: text that is bound to it is digested, unless it came out of the database.

    So the ORM, a bulk insert and a comparison such as `AccessToken.token == bearer` all mean the digest, and a
    digest that somebody read in a dump is text like any other: it is digested once more, and found nowhere.
    """

    impl = String
    cache_ok = True

    @override
    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name in {"mysql", "mariadb"}:  # whose usual collations take a for A
            compared = MYSQL_VARCHAR(self.impl_instance.length, charset="ascii", collation="ascii_bin")  # type: ignore[attr-defined]
            return dialect.type_descriptor(compared)
        return super().load_dialect_impl(dialect)

    @override
    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None:
            return None
        return str(value) if isinstance(value, AtRest) else marked_digest(value)

    @override
    def process_result_value(self, value: str | None, dialect: Dialect) -> AtRest | None:
        return None if value is None else AtRest(value)


class GUID(TypeDecorator[uuid.UUID]):
    """A UUID: PostgreSQL's own type there, 36 characters elsewhere."""

    class UUIDChar(CHAR):
        """Characters that stand for a UUID."""

        python_type: ClassVar[type] = uuid.UUID

    impl = UUIDChar
    cache_ok = True

    @override
    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(UUID(as_uuid=False))
        return dialect.type_descriptor(CHAR(36))

    @override
    def process_bind_param(self, value: uuid.UUID | str | None, dialect: Dialect) -> str | None:
        if value is None:
            return None
        return str(value if isinstance(value, uuid.UUID) else uuid.UUID(value))

    @override
    def process_result_value(self, value: Any, dialect: Dialect) -> uuid.UUID | None:
        return value if value is None or isinstance(value, uuid.UUID) else uuid.UUID(value)


class TIMESTAMPAware(TypeDecorator[datetime]):
    """A time in UTC, aware in Python, whatever the database thinks of time zones; a naive one is taken as UTC."""

    impl = TIMESTAMP
    cache_ok = True

    @override
    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        moment = utc(value)
        return moment if dialect.name == "postgresql" else moment.replace(tzinfo=None)

    @override
    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else utc(value)


def now_utc() -> datetime:
    """Return the time, aware and in UTC."""
    return datetime.now(UTC)


def utc(moment: datetime) -> datetime:
    """Return a time in UTC; a naive one is taken as UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
