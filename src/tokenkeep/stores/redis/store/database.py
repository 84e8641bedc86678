"""One Redis of any form, spoken to in one way, asked again while it is away for a moment."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from secrets import SystemRandom
from typing import Any, Final

from redis.exceptions import NoScriptError

from tokenkeep.errors import StoreError
from tokenkeep.stores.redis.client import Clients
from tokenkeep.stores.redis.store.errors import DRIVERS, as_ours, is_passing
from tokenkeep.stores.redis.store.names import Names
from tokenkeep.stores.redis.store.scripts import Script

_FIRST_PAUSE: Final = 0.01
_LONGEST_PAUSE: Final = 0.25
_JITTER: Final = SystemRandom()

type Argument = bytes | str | int


class Database:
    """What the rooms of the store ask their questions of.

    Every question is safe to repeat: what changes something recognises what it did before. So each is repeated
    while the server is lost, for as long as `patience`.

    Args:
        clients: the connections.
        names: what the keys are called.
        name: what errors call it; never a data source name.
        in_cluster: whether keys lie in slots, of which a command or script may ask one only.
        patience: seconds for which a lost server is looked for again.
    """

    def __init__(
        self,
        clients: Clients,
        *,
        names: Names,
        name: str,
        in_cluster: bool,
        asynchronous: bool,
        patience: float,
    ) -> None:
        self.clients = clients
        self.names = names
        self.name = name
        self.in_cluster = in_cluster
        self._asynchronous = asynchronous
        self._patience = patience
        self._forgetting: list[Callable[[], None]] = []

    def at_fork(self, forget: Callable[[], None]) -> None:
        """Have something forgotten in a child process."""
        self._forgetting.append(forget)

    def forget(self) -> None:
        """After a fork: let go of the connections, and of what is the parent's."""
        self.clients.forget()
        for forget in self._forgetting:
            forget()

    async def run(self, script: Script, keys: Sequence[bytes], *arguments: Argument) -> Any:
        """Run a script."""
        words = (b"%d" % len(keys), *keys, *map(_bytes, arguments))
        return await self.repeated(lambda: self._run(script, words))

    async def _run(self, script: Script, words: Sequence[bytes]) -> Any:
        try:
            return await self.clients.ask("EVALSHA", script.name, *words)
        except NoScriptError:  # this server was started since, or never ran it
            return await self.clients.ask("EVAL", script.text, *words)

    async def ask(self, command: str, *words: Argument) -> Any:
        """Ask one command that names a key and is safe to repeat."""
        packed = tuple(map(_bytes, words))
        return await self.repeated(lambda: self.clients.ask(command, *packed))

    async def get(self, key: bytes) -> bytes | None:
        """Return the value of a key."""
        value: bytes | None = await self.repeated(lambda: self.clients.get(key))
        return value

    async def repeated[T](self, question: Callable[[], Awaitable[T]]) -> T:
        """Ask, and again while the server is lost.

        Raises:
            StoreUnavailable: it did not come back in time, or will not do it.
            StoreError: a key is not what tokenkeep made it.
        """
        began, losses = time.monotonic(), 0
        while True:
            try:
                return await question()
            except DRIVERS as error:
                failure, again = self.failed(error), is_passing(error)
            pause = 0.0 if not losses else self._jittered(losses)
            losses += 1
            if not again or time.monotonic() + pause - began > self._patience:
                raise failure
            await self.sleep(pause)

    def failed(self, error: Exception) -> StoreError:
        """Return a failure as one of our errors, to be raised where the original is no longer handled."""
        self.clients.failed()
        return as_ours(self.name, error)

    async def pause(self, losses: int) -> None:
        """Let a moment pass, a longer one the more often it was in vain."""
        await self.sleep(self._jittered(losses))

    async def sleep(self, seconds: float) -> None:
        """Let a moment pass."""
        if self._asynchronous:
            await asyncio.sleep(seconds)
        else:
            time.sleep(seconds)  # noqa: ASYNC251  # the sync face has no event loop to keep waiting

    @staticmethod
    def _jittered(losses: int) -> float:
        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(losses, 10))
        return _JITTER.uniform(longest / 4, longest)


def _bytes(word: Argument) -> bytes:
    if isinstance(word, bytes):
        return word
    return word.encode(errors="replace") if isinstance(word, str) else b"%d" % word
