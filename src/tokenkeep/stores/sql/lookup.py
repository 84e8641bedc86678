"""One row by its key: the statement that runs on every request."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from sqlalchemy import Select

from tokenkeep._kept import Kept
from tokenkeep.errors import StoreError
from tokenkeep.stores.sql.database import Database
from tokenkeep.stores.sql.servers.engine import EngineDatabase
from tokenkeep.stores.sql.sqlite.reading import FileReader
from tokenkeep.stores.sql.wire.coalescing import Key, Row
from tokenkeep.stores.sql.wire.question import Fetch, Question, Wire

KEPT: Final = 10_000
"""How many rows are remembered in decoded form, to be handed out again while they read the same."""


class Lookup[R]:
    """A SELECT that is compiled once and, where the database allows it, runs on the driver itself.

    Its parameters are text or bytes, in the order in which the statement names them. Every look-up asks the
    database; only the decoding is saved where the row reads the same as the last time.

    Args:
        build: makes of the decoded columns what the look-up returns; it must hold no secret.
    """

    def __init__(
        self,
        database: Database,
        statement: Select[Any],
        reader: FileReader | Wire | None,
        build: Callable[[Sequence[Any]], R],
    ) -> None:
        self._build = build
        self._kept: Kept[Key, tuple[Row, R]] = Kept(KEPT)
        self._database = database
        self._statement = statement
        self._reader = reader if isinstance(reader, FileReader) else None
        self._fetch: Fetch | None = None
        compiled = statement.compile(dialect=database.dialect)
        self._sql = str(compiled)
        self._order: Sequence[str] = compiled.positiontup or list(compiled.params)
        self._decoders: Sequence[Callable[[Any], Any] | None] = [
            column.type.dialect_impl(database.dialect).result_processor(database.dialect, None)
            for column in statement.selected_columns
        ]
        if isinstance(database, EngineDatabase) and reader is not None and not isinstance(reader, FileReader):
            question = Question.of(statement, database.dialect)
            self._fetch, self._decoders = partial(database.directly, reader.fetching(question)), question.decoders

    async def find(self, *key: str | bytes) -> R | None:
        """Return what the row stands for, or `None` where there is no row.

        Raises:
            StoreError: a column holds what tokenkeep never wrote.
        """
        if self._reader is not None:
            return self._find_in_file(self._reader, key)
        return self._made_of(key, await self._read(key))

    def _find_in_file(self, reader: FileReader, key: Key) -> R | None:
        try:
            noted: R | None = reader.found((self, key))
            row = reader.first(self._sql, key) if noted is None else None
        except sqlite3.Error as error:
            failure = self._database.as_ours(error)
        else:
            if row is None:
                return noted
            made = self._made_of(key, row)
            reader.note((self, key), made)
            return made
        raise failure

    def _made_of(self, key: Key, row: Row) -> R | None:
        if row is None:
            return None
        kept = self._kept.get(key)
        if kept is not None and kept[0] == row:
            return kept[1]
        built = self._built(row)
        self._kept.keep(key, (row, built))
        return built

    def _built(self, row: Sequence[Any]) -> R:
        try:
            return self._build(row if self._reader is None and self._fetch is None else self._decoded(row))
        except (AttributeError, OverflowError, TypeError, ValueError) as error:
            msg = f"{self._database.name}: a row is damaged; revoke that token, and find out who wrote it"
            raise StoreError(msg) from error

    async def _read(self, key: Key) -> Row:
        """Return the row as the driver gave it."""
        if self._fetch is not None:
            return await self._fetch(key)
        parameters = dict(zip(self._order, key, strict=True))
        row: Row = await self._database.read(lambda transaction: transaction.first(self._statement, parameters))
        return row

    def _decoded(self, row: Sequence[Any]) -> Sequence[Any]:
        return [
            value if decode is None or value is None else decode(value)
            for decode, value in zip(self._decoders, row, strict=True)
        ]
