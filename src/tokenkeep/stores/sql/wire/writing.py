"""Transactions in the words of the driver itself, for the few statements that are said all the time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple, Protocol, cast

from sqlalchemy import Dialect, Executable
from sqlalchemy.dialects.postgresql import asyncpg
from sqlalchemy.sql import ClauseElement

from tokenkeep.stores.sql.database import Asking, Values

_BEGIN: Final = "BEGIN ISOLATION LEVEL READ COMMITTED"


class Line(Protocol):
    """A connection on which each statement is its own transaction until it is told otherwise."""

    async def rows(self, sql: str, values: Sequence[Any]) -> Sequence[Any]:
        """Execute a statement with $1, $2 ... and return its rows."""

    async def say(self, sql: str) -> None:
        """Execute a statement without parameters."""

    async def close(self) -> None:
        """Close it."""

    def drop(self) -> None:
        """Close it at once."""


class _Written(NamedTuple):
    """A statement as text, and the names and the values of its parameters that are not given."""

    sql: str
    order: Sequence[str]
    given: Values


class DirectTransaction:
    """Implements `Asking`. Values go to the driver, and rows come from it, as they are."""

    def __init__(self, line: Line, written: Callable[[Executable], _Written]) -> None:
        self._line = line
        self._written = written

    async def rows(self, statement: Executable, parameters: Values | None = None) -> Sequence[Any]:
        sql, order, given = self._written(statement)
        values = given if parameters is None else {**given, **parameters}
        return await self._line.rows(sql, [values[name] for name in order])

    async def first(self, statement: Executable, parameters: Values | None = None) -> Any:
        rows = await self.rows(statement, parameters)
        return rows[0] if rows else None


class Writing:
    """Runs transactions on one connection, one after another. A connection that was lost is replaced by the next one.

    It lives in one event loop.

    Args:
        connect: opens a line.
    """

    def __init__(self, connect: Callable[[], Awaitable[Line]]) -> None:
        self._connect = connect
        self._line: Line | None = None
        self._turn = asyncio.Lock()
        self._dialect: Dialect = asyncpg.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
        self._known: dict[Executable, _Written] = {}

    async def transact[T](self, work: Callable[[Asking], Awaitable[T]], committing: Callable[[T], None]) -> T:
        """Run `work` in a transaction; `committing` is told what it returned before that is committed."""
        async with self._turn:
            line = self._line
            if line is None:
                line = self._line = await self._connect()
            try:
                await line.say(_BEGIN)
                result = await work(DirectTransaction(line, self._written))
                committing(result)
                await line.say("COMMIT")
            except BaseException as error:
                await self._back(line, error)
                raise
            return result

    async def _back(self, line: Line, error: BaseException) -> None:
        """Take back what was begun; a line that cannot even do that is dropped, and the transaction with it."""
        self._line = None
        if isinstance(error, Exception):
            with suppress(Exception):
                await line.say("ROLLBACK")
                self._line = line
        if self._line is None:
            line.drop()

    def _written(self, statement: Executable) -> _Written:
        found = self._known.get(statement)
        if found is None:
            compiled: Any = cast("ClauseElement", statement).compile(dialect=self._dialect)
            found = self._known[statement] = _Written(str(compiled), compiled.positiontup or (), dict(compiled.params))
        return found

    async def close(self) -> None:
        """Close the line when nobody uses it any more."""
        async with self._turn:
            line, self._line = self._line, None
            if line is not None:
                await line.close()

    def drop(self) -> None:
        """Close the line at once."""
        if self._line is not None:
            self._line.drop()
