"""psycopg connections on which no statement takes for ever, even when the server has stopped answering."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Final

import psycopg
from psycopg.adapt import Loader
from psycopg.pq import Format

WAKES: Final = 0.1
"""Seconds between two looks at the clock while the server is silent."""


class _Expired(Exception):
    """The time is up."""


def _until(deadline: float, steps: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """Do the steps of psycopg's protocol while there is time."""
    try:
        wanted = next(steps)
        while True:
            ready = yield wanted
            if time.monotonic() > deadline:
                raise _Expired
            wanted = steps.send(ready)
    except StopIteration as done:
        return done.value


class Bounded(psycopg.Connection[Any]):
    """A connection that is closed when the server lets a statement wait longer than `limit` seconds."""

    limit = 30.0

    def wait(self, gen: Any, interval: float = WAKES, *arguments: Any, **options: Any) -> Any:
        """Wait for psycopg's protocol, but not for ever."""
        try:
            return super().wait(_until(time.monotonic() + self.limit, gen), min(interval, WAKES), *arguments, **options)
        except _Expired:
            self.pgconn.finish()
        raise _late()


class AsyncBounded(psycopg.AsyncConnection[Any]):
    """The same for the async face."""

    limit = 30.0

    async def wait(self, gen: Any, interval: float = WAKES, *arguments: Any, **options: Any) -> Any:
        """Wait for psycopg's protocol, but not for ever."""
        try:
            steps = _until(time.monotonic() + self.limit, gen)
            return await super().wait(steps, min(interval, WAKES), *arguments, **options)
        except _Expired:
            self.pgconn.finish()
        raise _late()


def _late() -> psycopg.OperationalError:
    return psycopg.OperationalError("statement time-out: the server did not answer, the connection is lost")


def connect(limit: float, *arguments: Any, **options: Any) -> Bounded:
    """Connect, with so many seconds for each statement."""
    connection = Bounded.connect(*arguments, **options)
    connection.limit = limit
    return connection


def connector(limit: float) -> Callable[..., Awaitable[AsyncBounded]]:
    """Return what connects, with so many seconds for each statement."""

    async def connect_async(*arguments: Any, **options: Any) -> AsyncBounded:
        connection = await AsyncBounded.connect(*arguments, **options)
        connection.limit = limit
        return connection

    return connect_async


class _Text(Loader):
    """JSON as it came: it is decoded where it is new."""

    def load(self, data: Any) -> str:
        return bytes(data).decode()


class _BinaryText(_Text):
    format = Format.BINARY

    def load(self, data: Any) -> str:
        return bytes(data)[1:].decode()  # the version of the format comes first


def _raw[C: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]](connection: C) -> C:
    for loader in (_Text, _BinaryText):
        connection.adapters.register_loader("jsonb", loader)
    return connection


def connect_raw(limit: float, *arguments: Any, **options: Any) -> Bounded:
    """Connect for look-ups: parameters are $1, $2 ..., each statement is its own transaction."""
    return _raw(connect(limit, *arguments, **options, autocommit=True, cursor_factory=psycopg.RawCursor))


async def connect_raw_async(limit: float, *arguments: Any, **options: Any) -> AsyncBounded:
    """The same for the async face."""
    opened = connector(limit)(*arguments, **options, autocommit=True, cursor_factory=psycopg.AsyncRawCursor)
    return _raw(await opened)
