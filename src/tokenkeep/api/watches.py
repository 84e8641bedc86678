"""What `watch` returns, on each face."""

from __future__ import annotations

from typing import Self

from tokenkeep._stepping import run
from tokenkeep.lifecycle import Opened
from tokenkeep.model import AcquiredToken
from tokenkeep.vault import VaultCore
from tokenkeep.watching import Watcher


class Watch:
    """The versions of a token, each once. Iterate over it; `with` or `close` ends it, and so does closing the vault.

    Of several threads that iterate over one watch each version goes to one. After an error it may be iterated
    over again.
    """

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> AcquiredToken:
        token = run(self._watcher.next())
        if token is None:
            raise StopIteration
        return token

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the iteration, from this thread or another. Safe to repeat."""
        run(self._watcher.close())


class AsyncWatch:
    """`Watch` for `async for` and `async with`. Cancelling a task that waits for a version ends nothing."""

    def __init__(self, opened: Opened[VaultCore], watcher: Watcher) -> None:
        self._opened = opened
        self._watcher = watcher

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AcquiredToken:
        if not self._opened.closed:
            await self._opened.started()
        token = await self._watcher.next()
        if token is None:
            raise StopAsyncIteration
        return token

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the iteration, from this task or another. Safe to repeat."""
        await self._watcher.close()
