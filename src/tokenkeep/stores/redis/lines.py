"""The shortest way to an answer: on a connection of redis-py, past its client and pool, which take twice as long."""

from __future__ import annotations

from collections import deque
from typing import Any

from redis.exceptions import ResponseError

from tokenkeep._stepping import settle


class Lines:
    """Connections that were taken out of a pool and are kept. Closing the client closes them. Safe to use from threads.

    When one fails, all that lie idle are closed too: the server they led to has probably gone.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._idle: deque[Any] = deque()

    async def get(self, key: bytes) -> Any:
        """Return the value of a key."""
        return await self._answer(b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(key), key))

    async def ask(self, *words: bytes) -> Any:
        """Return the answer to a command."""
        packed = b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])
        return await self._answer(b"*%d\r\n%b" % (len(words), packed))

    async def _answer(self, command: bytes) -> Any:
        line = self._idle_one() or await settle(self._pool.get_connection())
        try:
            await settle(line.send_packed_command([command], check_health=False))
            value = await settle(line.read_response())
        except ResponseError:
            self._idle.append(line)  # the server answered
            raise
        except BaseException:
            await self._give_up(line)
            raise
        self._idle.append(line)
        return value

    def _idle_one(self) -> Any:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    async def _give_up(self, line: Any) -> None:
        while line is not None:
            await settle(line.disconnect())
            await settle(self._pool.release(line))
            line = self._idle_one()
