"""One row by its key: the statement that runs on every request."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select

from tokenkeep.stores.sql.database import Database
from tokenkeep.stores.sql.errors import translated
from tokenkeep.stores.sql.sqlite import FileReader


class Lookup:
    """A SELECT that is compiled once and, where the database allows it, runs on the driver itself.

    Its parameters are text or bytes, in the order in which the statement names them.
    """

    def __init__(self, database: Database, statement: Select[Any], reader: FileReader | None) -> None:
        self._database = database
        self._statement = statement
        self._reader = reader
        compiled = statement.compile(dialect=database.dialect)
        self._sql = str(compiled)
        self._order: Sequence[str] = compiled.positiontup or list(compiled.params)
        self._decoders = [
            column.type.dialect_impl(database.dialect).result_processor(database.dialect, None)
            for column in statement.selected_columns
        ]

    async def first(self, *key: str | bytes) -> Sequence[Any] | None:
        """Return the decoded values of the row, or `None`."""
        row = await self.raw(*key)
        return None if row is None else self.decoded(row)

    async def raw(self, *key: str | bytes) -> Sequence[Any] | None:
        """Return the row as the driver gave it, or `None`. Equal rows decode to equal values."""
        if self._reader is None:
            async with self._database.reading() as transaction:
                row: Sequence[Any] | None = await transaction.first(
                    self._statement, dict(zip(self._order, key, strict=True))
                )
                return row
        try:
            found: Sequence[Any] | None = self._reader.first(self._sql, key)
        except sqlite3.Error:
            with translated(self._database.name):
                raise
        return found

    def decoded(self, row: Sequence[Any]) -> Sequence[Any]:
        """Decode a row of `raw`."""
        if self._reader is None:
            return row
        return [
            value if decode is None or value is None else decode(value)
            for decode, value in zip(self._decoders, row, strict=True)
        ]
