"""Redis tells of new tokens by publishing, which is lost on whoever does not listen at that moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from tokenkeep._stepping import settle
from tokenkeep.model import Account
from tokenkeep.stores.redis.address import Address
from tokenkeep.stores.redis.client import Clients

SILENCE: Final = 30.0
"""Seconds after which the server is asked whether it is still there: a dead connection is silent too."""

_OPENING: Final = 2.0
"""Seconds for an answer."""


def channel_of(prefix: str) -> str:
    """Name the channel on which the keys of changed accounts are published."""
    return f"{prefix}:changed"


class RedisBell:
    """Implements `Bell`, on a connection of its own; in a cluster to any node, for each hears what all publish.

    Args:
        key: the key of an account, which is what is published.
    """

    def __init__(self, address: Address, key: Callable[[Account], bytes], *, asynchronous: bool) -> None:
        nodes = address.nodes if address.form == "cluster" else ()
        self._addresses = [replace(address, form="", nodes=(node,)) for node in nodes] or [address]
        self._channel = channel_of(address.prefix)
        self._key = key
        self._asynchronous = asynchronous

    def topic(self, account: Account, kind: str) -> str:  # noqa: ARG002  # one message for all that a login brought
        return self._key(account).decode()

    async def listen(self) -> RedisEar:
        failure: BaseException | None = None
        for address in self._addresses:
            ear = RedisEar(Clients(address, asynchronous=self._asynchronous))
            try:
                await ear.open(self._channel)
            except BaseException as error:
                await ear.close()
                if not isinstance(error, Exception):
                    raise
                failure = error  # the next node may be there
            else:
                return ear
        raise ConnectionError from failure


class RedisEar:
    """Implements `Ear`. redis-py connects again in silence: a second word that it has subscribed is the only sign."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._listening: Any = clients.client().pubsub()
        self._asked: float | None = None

    async def open(self, channel: str) -> None:
        await settle(self._listening.subscribe(channel))
        if await self._message(_OPENING) is None:
            raise TimeoutError
        self._last = time.monotonic()

    async def _message(self, seconds: float) -> Any:
        return await settle(self._listening.get_message(timeout=seconds))

    async def heard(self, seconds: float) -> Collection[str] | None:
        message, now = await self._message(seconds), time.monotonic()
        if message is None:
            if now - self._last > SILENCE:
                await self._ask(now)
            return ()
        self._last, self._asked = now, None
        if message["type"] == "pong":
            return ()
        return {message["data"].decode()} if message["type"] == "message" else None

    async def _ask(self, now: float) -> None:
        """Find out whether the server is there."""
        if self._asked is None:
            self._asked = now
            await settle(self._listening.ping())
        elif now - self._asked > _OPENING:
            raise TimeoutError

    async def close(self) -> None:
        with suppress(Exception):  # the server may be gone, and then there is nobody to take leave of
            await settle(self._listening.aclose() if self._clients.asynchronous else self._listening.close())
        await self._clients.close()
