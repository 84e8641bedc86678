"""Look-ups on asyncpg or psycopg in an event loop: coalesced, on at most two connections."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

from tokenkeep.stores.sql.wire.coalescing import Coalescer, Key, Row
from tokenkeep.stores.sql.wire.question import Fetch, Question, in_order

LANES: Final = 2


class Line(Protocol):
    """A connection of either driver."""

    async def one(self, question: Question, key: Key) -> Row:
        """Find one row."""

    async def many(self, question: Question, lists: Sequence[list[Any]]) -> Sequence[Sequence[Any]]:
        """Find numbered rows."""

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


class AsyncWire:
    """Implements `Wire`.

    Args:
        connect: opens a line.
    """

    def __init__(self, connect: Callable[[], Awaitable[Line]]) -> None:
        self._connect = connect
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lanes: list[Lane] = []
        self._coalescer: Coalescer[Question] | None = None

    def fetching(self, question: Question) -> Fetch:
        def fetch(key: Key) -> Awaitable[Row]:
            return self._here().find(question, key)

        return fetch

    def _here(self) -> Coalescer[Question]:
        """Return what works in this event loop."""
        loop = asyncio.get_running_loop()
        if self._coalescer is None or self._loop is not loop:
            self._let_go()
            self._loop = loop
            self._lanes = [Lane(self._connect) for _ in range(LANES)]
            self._coalescer = Coalescer([lane.ask for lane in self._lanes])
        return self._coalescer

    def _let_go(self) -> None:
        for lane in self._lanes:
            with suppress(RuntimeError):  # the loop that it belonged to has ended
                lane.drop()
        self._lanes, self._coalescer = [], None

    async def close(self) -> None:
        if self._loop is not asyncio.get_running_loop():
            self._let_go()
            return
        if self._coalescer is not None:
            await self._coalescer.finish()
        for lane in self._lanes:
            await lane.close()
        self._lanes, self._coalescer, self._loop = [], None, None

    def forget(self) -> None:
        self._forgotten = (self._lanes, self._coalescer)  # nothing is sent to the parent's server
        self._lanes, self._coalescer, self._loop = [], None, None
