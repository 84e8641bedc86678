"""PostgreSQL tells of new tokens by NOTIFY, in the transaction that puts them in place."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from hashlib import sha256
from typing import Any, Final, Protocol

from sqlalchemy import bindparam, func

from tokenkeep.model import Account

CHANNEL: Final = "tokenkeep_token"

TELL: Final = func.pg_notify(CHANNEL, bindparam("topic"))
"""What the INSERT of a token returns, so that it costs no round trip; it reaches whoever listens at the commit only."""

LISTEN: Final = "LISTEN tokenkeep_token"
ALIVE: Final = "SELECT pg_backend_pid()"

SILENCE: Final = 30.0
"""Seconds after which the server is asked whether it is still there: a dead connection is silent too."""


def topic_of(account: Account) -> str:
    """Return a digest: a message can be read by everybody who may connect to the database."""
    return sha256("".join(f"{len(part)}:{part}" for part in account).encode()).hexdigest()


class Session(Protocol):
    """A connection of either driver that listens."""

    async def pid(self, *, asked: bool) -> int:
        """Return the process of the server behind it: as it said at connecting, or `asked` now."""

    async def begin(self) -> None:
        """Listen."""

    async def messages(self, seconds: float) -> Collection[str]:
        """Wait for messages, at most so long."""

    async def close(self) -> None:
        """Close it."""


class PostgresBell:
    """Implements `Bell`, on a connection of its own.

    A pooler that hands on connections by transaction would give the session to somebody else: it is known
    by the process that answers not being the one that was connected to, and then nothing is listened to.

    Args:
        connect: opens a session.
    """

    def __init__(self, connect: Callable[[], Awaitable[Session]]) -> None:
        self._connect = connect

    def topic(self, account: Account, kind: str) -> str:  # noqa: ARG002  # one message for all that a login brought
        return topic_of(account)

    async def listen(self) -> PostgresEar | None:
        session = await self._connect()
        try:
            if await session.pid(asked=False) == await session.pid(asked=True):
                await session.begin()
                return PostgresEar(session)
        except BaseException:
            await session.close()
            raise
        await session.close()
        return None


class PostgresEar:
    """Implements `Ear`."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._asked = time.monotonic()

    async def heard(self, seconds: float) -> Collection[str]:
        if time.monotonic() - self._asked > SILENCE:
            await self._session.pid(asked=True)
            self._asked = time.monotonic()
        return await self._session.messages(seconds)

    async def close(self) -> None:
        await self._session.close()


class PsycopgSession:
    """Implements `Session` on psycopg for threads."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def pid(self, *, asked: bool) -> int:
        return int(self._connection.execute(ALIVE).fetchone()[0] if asked else self._connection.info.backend_pid)

    async def begin(self) -> None:
        self._connection.execute(LISTEN)

    async def messages(self, seconds: float) -> Collection[str]:
        return {message.payload for message in self._connection.notifies(timeout=seconds, stop_after=1)}

    async def close(self) -> None:
        self._connection.close()


class AsyncPsycopgSession:
    """Implements `Session` on psycopg for an event loop."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def pid(self, *, asked: bool) -> int:
        if not asked:
            return int(self._connection.info.backend_pid)
        cursor = await self._connection.execute(ALIVE)
        return int((await cursor.fetchone())[0])

    async def begin(self) -> None:
        await self._connection.execute(LISTEN)

    async def messages(self, seconds: float) -> Collection[str]:
        return {message.payload async for message in self._connection.notifies(timeout=seconds, stop_after=1)}

    async def close(self) -> None:
        await self._connection.close()


class AsyncpgSession:
    """Implements `Session` on asyncpg, which calls back."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._heard: set[str] = set()
        self._told = asyncio.Event()

    async def pid(self, *, asked: bool) -> int:
        return int(await self._connection.fetchval(ALIVE) if asked else self._connection.get_server_pid())

    async def begin(self) -> None:
        self._connection.add_termination_listener(lambda _: self._told.set())
        await self._connection.add_listener(CHANNEL, self._hear)

    def _hear(self, _connection: object, _pid: int, _channel: str, payload: str) -> None:
        self._heard.add(payload)
        self._told.set()

    async def messages(self, seconds: float) -> Collection[str]:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._told.wait()
        self._told.clear()
        if self._connection.is_closed():
            msg = "the connection that listened was closed"
            raise ConnectionError(msg)
        heard, self._heard = self._heard, set()
        return heard

    async def close(self) -> None:
        await self._connection.close(timeout=2)
