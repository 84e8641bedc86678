"""The right type for each thing in each database."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, LargeBinary, String, Text, TypeDecorator
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.types import TypeEngine

MARIADB: Final = ("mysql", "mariadb")
"""What SQLAlchemy calls the two, by the scheme of the URL and whatever the server is."""

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
        if dialect.name in MARIADB:
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(BigInteger())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Turn an aware time into what the column holds."""
        if value is None:
            return None
        if dialect.name == "postgresql":
            return value.astimezone(UTC)
        if dialect.name in MARIADB:
            return value.astimezone(UTC).replace(tzinfo=None)
        return to_microseconds(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:  # noqa: ARG002  # SQLAlchemy's hook
        """Turn what the column holds into an aware UTC time."""
        if value is None:
            return None
        if isinstance(value, datetime):
            return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        return from_microseconds(value)


class Word(String):
    """Text that is compared character by character in every database: no case, no accent, no padding is ignored."""


@compiles(Word, *MARIADB)
def _word(element: Word, compiler: Any, **_: Any) -> str:
    """Say it in the words of the server that is there: MariaDB's collation is unknown to MySQL, and the other way."""
    collation = "utf8mb4_nopad_bin" if compiler.dialect.is_mariadb else "utf8mb4_0900_bin"
    return f"VARCHAR({element.length:d}) CHARACTER SET utf8mb4 COLLATE {collation}"


class Prose(TypeDecorator[str]):
    """Text of unknown origin for people to read; what cannot be stored everywhere is replaced by U+FFFD."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Choose the column type: 65,535 bytes would be too few on MariaDB."""
        return dialect.type_descriptor(mysql.MEDIUMTEXT(charset="utf8mb4") if dialect.name in MARIADB else Text())

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002  # SQLAlchemy's hook
        """Replace NUL, which PostgreSQL refuses, and lone surrogates, which are no text."""
        if value is None:
            return None
        return value.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


_ESCAPE: Final = "\ufdd0"  # a noncharacter, which text has no reason to hold
_REFUSED: Final = re.compile("[\x00\ud800-\udfff\ufdd0]")
_ESCAPED: Final = re.compile("\ufdd0([0-9a-f]{4})")


class Json(TypeDecorator[Any]):
    """JSON of any text: servers refuse NUL or lone surrogates in it, so there they stand escaped."""

    impl = JSON
    cache_ok = True

    def __init__(self) -> None:
        super().__init__(none_as_null=True)

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Choose the column type."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.JSONB(none_as_null=True))
        return dialect.type_descriptor(JSON(none_as_null=True))

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """Escape what servers refuse."""
        return value if dialect.name == "sqlite" else _each_text(value, escaped)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """Undo it."""
        return value if dialect.name == "sqlite" else _each_text(value, unescaped)


def escaped(text: str) -> str:
    """Write what servers refuse in characters that they take."""
    return text if text.isascii() and "\x00" not in text else _REFUSED.sub(_escape, text)


def unescaped(text: str) -> str:
    """Undo `escaped`."""
    return _ESCAPED.sub(_unescape, text) if _ESCAPE in text else text


def _escape(match: re.Match[str]) -> str:
    return f"{_ESCAPE}{ord(match[0]):04x}"


def _unescape(match: re.Match[str]) -> str:
    return chr(int(match[1], 16))


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(key) if isinstance(key, str) else key: _each_text(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_each_text(item, change) for item in value]
    return value


def octets(length: int) -> TypeEngine[bytes]:
    """Bytes of one fixed length, fit for a key."""
    return LargeBinary(length).with_variant(mysql.BINARY(length), *MARIADB)


def blob() -> TypeEngine[bytes]:
    """Bytes of any length."""
    return LargeBinary(2**24).with_variant(LargeBinary(), "sqlite", "postgresql")
