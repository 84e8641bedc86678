"""One row by its key: the statement that runs on every request."""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Dialect, Select, bindparam, literal_column

from tokenkeep._kept import Kept
from tokenkeep.errors import StoreError
from tokenkeep.stores.sql.database import Database
from tokenkeep.stores.sql.servers.engine import EngineDatabase
from tokenkeep.stores.sql.sqlite.reading import FileReader, Thread
from tokenkeep.stores.sql.wire.coalescing import Key, Row
from tokenkeep.stores.sql.wire.question import Fetch, Question, Wire

KEPT: Final = 10_000
"""How many rows are remembered in decoded form, to be handed out again while they read the same."""

MINUTE: Final = 60.0


class _Decoded[R](NamedTuple):
    """A row as the driver gave it, what was made of it, what asks for the same row again, and when it was read."""

    row: Row
    built: R
    again: Sequence[Any]
    read_at: float


class _Compiled(NamedTuple):
    """A statement in the words of the database.

    Attributes:
        order: of its parameters.
        again: the question whether a row still reads the same.
        decoders: what to do with each column; `None` where nothing is to be done.
        fetch: asks the driver itself; `None` where it is asked like any other.
    """

    sql: str
    order: Sequence[str]
    again: str
    decoders: Sequence[Callable[[Any], Any] | None]
    fetch: Fetch | None


class Lookup[R]:
    """A SELECT that is compiled once and, where the database allows it, runs on the driver itself.

    Its parameters are text or bytes, in the order in which the statement names them. Every look-up asks the
    database; only the decoding is saved where the row reads the same as the last time. On SQLite, where each column
    costs, a row that was decoded before is not even fetched: the database is asked whether it still reads the same.

    Args:
        build: makes of the decoded columns what the look-up returns; it must hold no secret.
        moving: the column in the last place when uses alone change it: of a row that otherwise reads the same, it
            may be up to a minute old. SQLite only: elsewhere it is never old.
    """

    def __init__(
        self,
        database: Database,
        statement: Select[Any],
        reader: FileReader | Wire | None,
        build: Callable[[Sequence[Any]], R],
        *,
        moving: ColumnElement[Any] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._build = build
        self._kept: Kept[Key, _Decoded[R]] = Kept(KEPT)
        self._before: Sequence[Any] = ()
        self._database = database
        self._statement = statement
        self._reader = reader if isinstance(reader, FileReader) else None
        self._monotonic = monotonic
        self._wire = None if isinstance(reader, FileReader) else reader
        self._columns = list(statement.selected_columns)
        ages = self._reader is not None and moving is not None
        self._oldest = MINUTE if ages else math.inf
        self._lasting = len(self._columns) - ages

    @cached_property
    def _compiled(self) -> _Compiled:
        """The statement, when it is first asked: a vault finds no issued tokens, an issuer no acquired ones."""
        database, statement = self._database, self._statement
        if isinstance(database, EngineDatabase) and self._wire is not None:
            question = Question.of(statement, database.dialect)
            fetch = partial(database.directly, self._wire.fetching(question))
            return _Compiled("", (), "", question.decoders, fetch)
        compiled = statement.compile(dialect=database.dialect)
        order = compiled.positiontup or list(compiled.params)
        again = _again(statement, self._columns[: self._lasting], database.dialect)
        decoders = [
            column.type.dialect_impl(database.dialect).result_processor(database.dialect, None)
            for column in self._columns
        ]
        return _Compiled(str(compiled), order, again, decoders, None)

    async def find(self, *key: str | bytes) -> R | None:
        """Return what the row stands for, or `None` where there is no row.

        Raises:
            StoreError: a column holds what tokenkeep never wrote.
        """
        if self._reader is not None:
            return self._find_in_file(self._reader, key)
        return self._made_of(key, await self._read(key))

    def _find_in_file(self, reader: FileReader, key: Key) -> R | None:
        place = (self, key)
        try:
            thread = reader.thread()
            found: R | None = thread.found(place)
            if found is not None:
                return found
            found = self._unchanged(thread, key)
            row = thread.first(self._compiled.sql, key) if found is None else None
            if found is None:
                found = self._made_of(key, row)
            if found is not None:
                thread.note(place, found)
        except sqlite3.Error as error:
            failure = self._database.as_ours(error)
        else:
            return found
        raise failure

    def _unchanged(self, thread: Thread, key: Key) -> R | None:
        """Return what was made of the row before, if the database says that it still reads the same."""
        kept = self._kept.get(key)
        if kept is None or self._monotonic() - kept.read_at >= self._oldest:
            return None
        return None if thread.first(self._compiled.again, kept.again) is None else kept.built

    def _made_of(self, key: Key, row: Row) -> R | None:
        kept = self._kept.get(key)
        if row is None:
            self._kept.pop(key, None)
            return None
        if kept is not None and kept.row == row:
            if self._oldest < math.inf:
                self._kept.keep(key, kept._replace(read_at=self._monotonic()))
            return kept.built
        row = self._sharing(row)
        built = self._built(row)
        again = () if self._reader is None else (*key, *row[: self._lasting])
        self._kept.keep(key, _Decoded(row, built, again, self._monotonic()))
        return built

    def _sharing(self, row: Sequence[Any]) -> Sequence[Any]:
        """Rows resemble each other: hold the text that a row has in common with the one before it only once."""
        before = self._before if len(self._before) == len(row) else row
        shared = tuple([old if type(new) is str and old == new else new for old, new in zip(before, row, strict=True)])
        self._before = shared
        return shared

    def _built(self, row: Sequence[Any]) -> R:
        try:
            return self._build(row if self._reader is None and self._compiled.fetch is None else self._decoded(row))
        except (AttributeError, OverflowError, TypeError, ValueError) as error:
            msg = f"{self._database.name}: a row is damaged; revoke that token, and find out who wrote it"
            raise StoreError(msg) from error

    async def _read(self, key: Key) -> Row:
        """Return the row as the driver gave it."""
        fetch = self._compiled.fetch
        if fetch is not None:
            return await fetch(key)
        parameters = dict(zip(self._compiled.order, key, strict=True))
        row: Row = await self._database.read(lambda transaction: transaction.first(self._statement, parameters))
        return row

    def _decoded(self, row: Sequence[Any]) -> Sequence[Any]:
        return [
            value if decode is None or value is None else decode(value)
            for decode, value in zip(self._compiled.decoders, row, strict=True)
        ]


def _again(statement: Select[Any], columns: Sequence[ColumnElement[Any]], dialect: Dialect) -> str:
    """The question whether a row still reads the same: its parameters, and then its columns as they were."""
    same = [column.is_not_distinct_from(bindparam(f"column_{place}")) for place, column in enumerate(columns)]
    return str(statement.with_only_columns(literal_column("1")).where(*same).compile(dialect=dialect))
