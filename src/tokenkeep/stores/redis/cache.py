"""Copies of sealed records in Redis: one string for each account."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from hashlib import sha256
from importlib import resources
from typing import Any, Final

from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    NoPermissionError,
    OutOfMemoryError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from tokenkeep._stepping import settle
from tokenkeep.model import Account
from tokenkeep.stores.redis.bell import channel_of
from tokenkeep.stores.redis.client import Clients
from tokenkeep.stores.tiered.cache import CacheFailed

_MILLISECOND: Final = timedelta(milliseconds=1)

_REASONS: Final = (
    ((AuthenticationError, AuthorizationError), "refuses the user name or the password; check the URL"),
    ((NoPermissionError,), "refuses a command; grant this user GET, SET, PTTL, TIME, UNLINK and EVAL"),
    ((OutOfMemoryError,), "is full; raise maxmemory, or set maxmemory-policy to allkeys-lru"),
    ((TimeoutError, RedisTimeoutError), "does not answer in time"),
)


def script(name: str) -> str:
    """Return the text of a script that stands in a `.lua` file beside this module."""
    return resources.files("tokenkeep.stores.redis").joinpath(f"{name}.lua").read_text()


class RedisCache:
    """Implements `RecordCache`."""

    name = "redis"

    def __init__(self, clients: Clients, *, prefix: str) -> None:
        self._clients = clients
        self._prefix = f"{prefix}:1:".encode()
        self._channel = channel_of(prefix).encode()
        self._fill, self._hold, self._clear = script("fill"), script("hold"), script("clear")

    async def get(self, account: Account) -> bytes | None:
        return await self._answered(lambda: self._get(self.key(account)))

    async def _get(self, key: bytes) -> bytes | None:
        try:
            value = await self._clients.get(key)
        except ResponseError as error:
            if str(error).startswith("WRONGTYPE"):
                return b""  # no value of ours
            raise
        return value if value is None else bytes(value)

    async def mark(self, account: Account, mark: bytes, lives: timedelta) -> bool:
        key, milliseconds = self.key(account), lives // _MILLISECOND
        return bool(
            await self._answered(lambda: settle(self._clients.client().set(key, mark, nx=True, px=milliseconds)))
        )

    async def fill(self, account: Account, mark: bytes, value: bytes, lives: timedelta) -> bool:
        return bool(await self._run(self._fill, account, mark, value, lives // _MILLISECOND))

    async def hold(self, account: Account, hold: bytes, lives: timedelta) -> None:
        await self._run(self._hold, account, hold, lives // _MILLISECOND)

    async def clear(self, account: Account, hold: bytes) -> None:
        await self._run(self._clear, account, hold, self._channel)

    async def _run(self, text: str, account: Account, *arguments: bytes | int) -> Any:
        return await self._answered(lambda: settle(self._clients.client().eval(text, 1, self.key(account), *arguments)))

    async def ping(self) -> None:
        await self._answered(lambda: self._clients.get(self._prefix))

    async def close(self) -> None:
        await self._clients.close()

    def forget(self) -> None:
        self._clients.forget()

    def key(self, account: Account) -> bytes:
        """Return a digest, so that neither names nor their characters stand in Redis."""
        joined = "".join(f"{len(part)}:{part}" for part in account)
        return self._prefix + sha256(joined.encode()).hexdigest().encode()

    async def _answered[T](self, question: Callable[[], Awaitable[T]]) -> T:
        try:
            return await question()
        except Exception as error:
            self._clients.failed()
            raise CacheFailed(_reason(error)) from error


def _reason(error: Exception) -> str:
    for kinds, reason in _REASONS:
        if isinstance(error, kinds):
            return reason
    return f"cannot be used ({type(error).__name__})"
