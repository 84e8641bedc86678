"""One row by its key: the statement that runs on every request."""

from __future__ import annotations

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
        if self._reader is None:
            async with self._database.reading() as transaction:
                return await transaction.first(self._statement, dict(zip(self._order, key, strict=True)))
        with translated(self._database.name):
            row = self._reader.first(self._sql, key)
        if row is None:
            return None
        return [
            value if decode is None or value is None else decode(value)
            for decode, value in zip(self._decoders, row, strict=True)
        ]
