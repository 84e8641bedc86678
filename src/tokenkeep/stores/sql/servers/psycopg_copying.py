"""COPY: the way in for many rows at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, Final

from psycopg import sql
from sqlalchemy import BigInteger, Column, Connection, Integer, LargeBinary, SmallInteger, String, Table
from sqlalchemy.dialects import postgresql

from tokenkeep.ports import Row
from tokenkeep.stores.sql.types import Instant, Json, Prose

_DIALECT: Final = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
_NAMES: Final = (
    (Instant, "timestamptz"),
    (Json, "jsonb"),
    (Prose, "text"),
    (SmallInteger, "int2"),
    (BigInteger, "int8"),
    (Integer, "int4"),
    (LargeBinary, "bytea"),
    (String, "text"),
)


class Copier:
    """Adds rows to one table by COPY, in the driver's binary form."""

    def __init__(self, table: Table) -> None:
        columns = list(table.columns)
        names = [column.name for column in columns]
        place = [table.schema, table.name] if table.schema else [table.name]
        self._copy = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
            sql.Identifier(*place), sql.SQL(", ").join(map(sql.Identifier, names))
        )
        self._types = [_name(column) for column in columns]
        self._values: Callable[[Row], tuple[Any, ...]] = itemgetter(*names)
        self._escapes = [
            (place, column.type.process_bind_param)
            for place, column in enumerate(columns)
            if isinstance(column.type, Json | Prose)
        ]

    def __call__(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Add rows in a transaction of the connection. One that is there already fails all of them."""
        if not connection.in_transaction():
            connection.begin()
        driver: Any = connection.connection.driver_connection
        with driver.cursor() as cursor, cursor.copy(self._copy) as copy:
            copy.set_types(self._types)
            for row in rows:
                copy.write_row(self._escaped(self._values(row)))

    def _escaped(self, values: tuple[Any, ...]) -> Sequence[Any]:
        """Escape what servers refuse."""
        fit = list(values)
        for place, escape in self._escapes:
            if values[place]:
                fit[place] = escape(values[place], _DIALECT)
        return fit


def _name(column: Column[Any]) -> str:
    return next(name for kind, name in _NAMES if isinstance(column.type, kind))
