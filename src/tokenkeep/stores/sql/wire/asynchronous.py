"""Look-ups on asyncpg or psycopg in an event loop: coalesced, on at most two connections."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

from tokenkeep.stores.sql.database import Asking
from tokenkeep.stores.sql.wire.coalescing import Coalescer, Key, Row
from tokenkeep.stores.sql.wire.question import Fetch, Question, in_order
from tokenkeep.stores.sql.wire.writing import Writing

LANES: Final = 2


class Line(Protocol):
    """A connection of either driver."""

    async def one(self, question: Question, key: Key) -> Row:
        """Find one row."""

    async def many(self, question: Question, lists: Sequence[list[Any]]) -> Sequence[Sequence[Any]]:
        """Find numbered rows."""

    async def rows(self, sql: str, values: Sequence[Any]) -> Sequence[Any]:
        """Execute a statement with $1, $2 ... and return its rows."""

    async def say(self, sql: str) -> None:
        """Execute a statement without parameters."""

    async def close(self) -> None:
        """Close it."""

    def drop(self) -> None:
        """Close it at once."""


class AsyncpgLine:
    """A connection of asyncpg, which keeps its prepared statements.

    It is lost when an answer takes longer than `limit` seconds. One timer sees to that as long as the line lives:
    asyncpg itself would set one for each query.

    Args:
        connection: it has no time-out of its own.
    """

    def __init__(self, connection: Any, limit: float) -> None:
        self._connection = connection
        self._limit = limit
        self._prepared: dict[str, Any] = {}
        self._loop = asyncio.get_running_loop()
        self._due: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def _begin(self) -> None:
        self._due = self._loop.time() + self._limit
        if self._timer is None:
            self._timer = self._loop.call_later(self._limit, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._due is None:
            return
        if self._due > self._loop.time():
            self._timer = self._loop.call_at(self._due, self._look)
            return
        self._connection.terminate()  # whoever waits for the answer is told that the connection is lost

    async def _prepare(self, sql: str) -> Any:
        prepared = self._prepared[sql] = await self._connection.prepare(sql)
        return prepared

    async def one(self, question: Question, key: Key) -> Row:
        self._begin()
        prepared = self._prepared.get(question.one) or await self._prepare(question.one)
        row: Row = await prepared.fetchrow(*key)
        self._due = None
        return row

    async def many(self, question: Question, lists: Sequence[list[Any]]) -> Sequence[Sequence[Any]]:
        self._begin()
        prepared = self._prepared.get(question.many) or await self._prepare(question.many)
        rows: Sequence[Sequence[Any]] = await prepared.fetch(*lists)
        self._due = None
        return rows

    async def rows(self, sql: str, values: Sequence[Any]) -> Sequence[Any]:
        self._begin()
        prepared = self._prepared.get(sql) or await self._prepare(sql)
        rows: Sequence[Any] = await prepared.fetch(*values)
        self._due = None
        return rows

    async def say(self, sql: str) -> None:
        self._begin()
        await self._connection.execute(sql)
        self._due = None

    async def close(self) -> None:
        self._forget_time()
        await self._connection.close(timeout=2)

    def drop(self) -> None:
        self._forget_time()
        self._connection.terminate()

    def _forget_time(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


class PsycopgLine:
    """A connection of psycopg, on which each statement is its own transaction."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def one(self, question: Question, key: Key) -> Row:
        cursor = await self._connection.execute(question.one, key, prepare=True, binary=True)
        row: Row = await cursor.fetchone()
        return row

    async def many(self, question: Question, lists: Sequence[list[Any]]) -> Sequence[Sequence[Any]]:
        cursor = await self._connection.execute(question.many, lists, prepare=True, binary=True)
        rows: Sequence[Sequence[Any]] = await cursor.fetchall()
        return rows

    async def rows(self, sql: str, values: Sequence[Any]) -> Sequence[Any]:
        cursor = await self._connection.execute(sql, values, prepare=True, binary=True)
        rows: Sequence[Any] = await cursor.fetchall()
        return rows

    async def say(self, sql: str) -> None:
        await self._connection.execute(sql)

    async def close(self) -> None:
        await self._connection.close()

    def drop(self) -> None:
        self._connection.pgconn.finish()


class Lane:
    """A place for one line. One on which anything went wrong is dropped; the next query opens another."""

    def __init__(self, connect: Callable[[], Awaitable[Line]]) -> None:
        self._connect = connect
        self._line: Line | None = None

    async def ask(self, question: Question, keys: Sequence[Key]) -> Sequence[Row]:
        """Ask for some keys in one query."""
        line = self._line
        if line is None:
            line = self._line = await self._connect()
        try:
            if len(keys) == 1:
                return (await line.one(question, keys[0]),)
            lists = [list(part) for part in zip(*keys, strict=True)]
            return in_order(await line.many(question, lists), len(keys))
        except BaseException:
            self._line = None
            line.drop()
            raise

    async def close(self) -> None:
        """Close the line."""
        line, self._line = self._line, None
        if line is not None:
            await line.close()

    def drop(self) -> None:
        """Close the line at once."""
        if self._line is not None:
            self._line.drop()


class _Loop:
    """What works in one event loop."""

    def __init__(self, connect: Callable[[], Awaitable[Line]]) -> None:
        self.loop = asyncio.get_running_loop()
        lanes = [Lane(connect) for _ in range(LANES)]
        self.coalescer = Coalescer([lane.ask for lane in lanes])
        self.writing = Writing(connect)
        self._places: list[Lane | Writing] = [*lanes, self.writing]

    async def close(self) -> None:
        await self.coalescer.finish()
        for place in self._places:
            await place.close()

    def drop(self) -> None:
        for place in self._places:
            with suppress(RuntimeError):  # the loop has ended
                place.drop()


class AsyncWire:
    """Implements `Wire` and `WritingWire`.

    Args:
        connect: opens a line.
    """

    def __init__(self, connect: Callable[[], Awaitable[Line]]) -> None:
        self._connect = connect
        self._used: _Loop | None = None

    def fetching(self, question: Question) -> Fetch:
        def fetch(key: Key) -> Awaitable[Row]:
            return self._here().coalescer.find(question, key)

        return fetch

    async def transact[T](self, work: Callable[[Asking], Awaitable[T]], committing: Callable[[T], None]) -> T:
        return await self._here().writing.transact(work, committing)

    def _here(self) -> _Loop:
        used = self._used
        if used is None or used.loop is not asyncio.get_running_loop():
            if used is not None:
                used.drop()
            used = self._used = _Loop(self._connect)
        return used

    async def close(self) -> None:
        used = self._used
        if used is not None and used.loop is asyncio.get_running_loop():
            await used.close()
        elif used is not None:
            used.drop()
        self._used = None

    def forget(self) -> None:
        self._forgotten, self._used = self._used, None  # nothing is sent to the parent's server
