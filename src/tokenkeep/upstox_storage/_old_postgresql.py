"""The PostgreSQL tables of the page's two classes for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC
from typing import Any, Final, NamedTuple

from sqlalchemy import Engine, TextClause, text
from sqlalchemy.exc import SQLAlchemyError

from tokenkeep.errors import StoreUnavailable
from tokenkeep.importing.entries import Entry, Origin
from tokenkeep.importing.seed_page import entry_at
from tokenkeep.stores.sql.servers import postgresql
from tokenkeep.stores.sql.servers.address import Address
from tokenkeep.upstox_storage._takeover import ERASED, OldRow, OldTokens


class _Table(NamedTuple):
    name: str
    rows: TextClause
    erase: TextClause


_THERE: Final = text("SELECT to_regclass(:name) IS NOT NULL")

_TABLES: Final = (
    _Table(
        "upstox_tokens",
        text("SELECT * FROM upstox_tokens WHERE access_token <> :erased ORDER BY id"),
        text(
            "UPDATE upstox_tokens SET access_token = :erased, is_active = FALSE WHERE id = :id AND access_token = :text"
        ),
    ),
    _Table(
        "upstox_token_backup",
        text("SELECT * FROM upstox_token_backup WHERE access_token <> :erased ORDER BY id"),
        text(
            "UPDATE upstox_token_backup SET access_token = :erased, is_active = FALSE "
            "WHERE id = :id AND access_token = :text"
        ),
    ),
)


class PostgreSQLTables:
    """`upstox_tokens` and the hybrid's `upstox_token_backup`, where they are."""

    def __init__(self, url: str) -> None:
        self._url = url

    @contextmanager
    def __call__(self) -> Iterator[OldTokens]:
        """Connect; who lacks the right to change a table that is there is told."""
        link = postgresql.Link(Address.read(self._url, postgresql.EXAMPLE), asynchronous=False)
        engine = postgresql.open_engine(link, asynchronous=False)
        assert isinstance(engine, Engine)  # noqa: S101  # the sync face's
        try:
            yield _Opened(engine)
        except SQLAlchemyError as error:
            what = type(getattr(error, "orig", None) or error).__name__
            msg = f"upstox_tokens or upstox_token_backup cannot be taken over ({what}); this user must be able to "
            msg += "read and update them; nothing is lost: open it again"
            raise StoreUnavailable(msg) from None
        finally:
            engine.dispose()


class _Opened:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def rows(self) -> Sequence[OldRow]:
        with self._engine.connect() as connection:
            there = [table for table in _TABLES if connection.execute(_THERE, {"name": table.name}).scalar_one()]
            return [
                _row(table, row)
                for table in there
                for row in connection.execute(table.rows, {"erased": ERASED}).mappings()
            ]

    def back_up(self) -> str:
        return ""

    def erase(self, rows: Sequence[OldRow]) -> None:
        with self._engine.begin() as connection:
            for row in rows:
                table, key = row.key
                connection.execute(table.erase, {"erased": ERASED, "id": key, "text": row.text})


def _row(table: _Table, row: Mapping[Any, Any]) -> OldRow:
    place, fields = f"row {row['id']} of {table.name}", {str(name): value for name, value in row.items()}

    def read(origin: Origin) -> Entry:
        told = fields.get("user_data") or {}
        made_at, stated = fields["created_at"].astimezone(UTC), fields["expires_at"].astimezone(UTC)
        return entry_at(place, {**told, **fields}, origin, made_at=made_at, stated=stated)

    return OldRow(
        place=place,
        key=(table, row["id"]),
        user_id=row["user_id"],
        active=bool(row["is_active"]),
        text=row["access_token"],
        read=read,
    )
