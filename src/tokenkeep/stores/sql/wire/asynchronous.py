"""Look-ups on asyncpg or psycopg in an event loop: coalesced, on at most two connections."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

from tokenkeep.stores.sql.wire.coalescing import Coalescer, Key, Row, Send
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
    """A connection of asyncpg, which keeps its prepared statements."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._prepared: dict[str, Any] = {}

    async def _prepare(self, sql: str) -> Any:
        prepared = self._prepared[sql] = await self._connection.prepare(sql)
        return prepared

    async def one(self, question: Question, key: Key) -> Row:
        prepared = self._prepared.get(question.one) or await self._prepare(question.one)
        row: Row = await prepared.fetchrow(*key)
        return row

    async def many(self, question: Question, lists: Sequence[list[Any]]) -> Sequence[Sequence[Any]]:
        prepared = self._prepared.get(question.many) or await self._prepare(question.many)
        rows: Sequence[Sequence[Any]] = await prepared.fetch(*lists)
        return rows

    async def close(self) -> None:
        await self._connection.close(timeout=2)

    def drop(self) -> None:
        self._connection.terminate()


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


class AsyncWire:
    """Implements `Wire`.

    A line on which anything went wrong is dropped; the next look-up opens another.

    Args:
        connect: opens a line.
    """

    def __init__(self, connect: Callable[[], Awaitable[Line]]) -> None:
        self._connect = connect
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lines: list[Line | None] = []
        self._coalescers: dict[Question, Coalescer] = {}
        self._turns: list[asyncio.Lock] = []

    def fetching(self, question: Question) -> Fetch:
        async def fetch(key: Key) -> Row:
            self._move_to_this_loop()
            coalescer = self._coalescers.get(question)
            if coalescer is None:
                lanes = [self._lane(number, question) for number in range(LANES)]
                coalescer = self._coalescers[question] = Coalescer(lanes)
            return await coalescer.find(key)

        return fetch

    def _lane(self, number: int, question: Question) -> Send:
        async def send(keys: Sequence[Key]) -> Sequence[Row]:
            async with self._turns[number]:  # two questions may use one line, in turn
                line = self._lines[number]
                if line is None:
                    line = self._lines[number] = await self._connect()
                try:
                    if len(keys) == 1:
                        return [await line.one(question, keys[0])]
                    lists = [list(part) for part in zip(*keys, strict=True)]
                    return in_order(await line.many(question, lists), len(keys))
                except BaseException:
                    self._lines[number] = None
                    line.drop()
                    raise

        return send

    def _move_to_this_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._let_go()
            self._loop = loop
            self._lines = [None] * LANES
            self._turns = [asyncio.Lock() for _ in range(LANES)]
            self._coalescers = {}

    def _let_go(self) -> None:
        for line in self._lines:
            if line is not None:
                with suppress(RuntimeError):  # the loop that it belonged to has ended
                    line.drop()
        self._lines = []

    async def close(self) -> None:
        if self._loop is not asyncio.get_running_loop():
            self._let_go()
            return
        for coalescer in self._coalescers.values():
            await coalescer.finish()
        for line in self._lines:
            if line is not None:
                await line.close()
        self._lines, self._loop = [], None

    def forget(self) -> None:
        self._forgotten = (self._lines, self._coalescers)  # nothing is sent to the parent's server
        self._lines, self._coalescers, self._loop = [], {}, None
