"""One way to drive both faces, so that a test is written once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, Literal, Self, cast

from tokenkeep import AcquiredToken, AsyncTokenIssuer, AsyncTokenVault, TokenIssuer, TokenVault
from tokenkeep.api.watches import Watch
from tokenkeep.ports import Source

type Face = Literal["sync", "async"]

THREADS: Final = 64
"""How many calls to one sync face may be under way at once."""


class Threaded:
    """Makes each method of a sync face awaitable by calling it in a thread.

    Calls that a test gathers really run side by side, as those of an async face do. Cancelling one only
    stops the waiting for it: a thread cannot be cancelled.
    """

    def __init__(self, opening: Callable[[], Any]) -> None:
        self._opening = opening
        self._face: Any = None
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="face")

    async def __aenter__(self) -> Self:
        try:
            self._face = await self._call(lambda: self._opening().__enter__())
        except BaseException:
            self._threads.shutdown()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the face and its threads. Safe to repeat."""
        if self._face is not None:
            face, self._face = self._face, None
            await self._call(face.close)
            self._threads.shutdown()

    async def _call(self, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(method, *args, **options))

    def watch(self, *args: Any, **options: Any) -> ThreadedWatch:
        """Watch by the face; nothing is asked of the store yet."""
        return ThreadedWatch(self._call, self._face.watch(*args, **options))

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        return partial(self._call, getattr(self._face, name))


class ThreadedWatch:
    """A sync watch as an async one. Cancelling a wait leaves a thread waiting, which takes the next version."""

    def __init__(self, call: Callable[..., Any], watch: Watch) -> None:
        self._call = call
        self._watch = watch

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AcquiredToken:
        token: AcquiredToken | None = await self._call(next, self._watch, None)
        if token is None:
            raise StopAsyncIteration
        return token

    async def aclose(self) -> None:
        """End the iteration."""
        await self._call(self._watch.close)


def open_vault(face: Face, url: Source, **options: Any) -> AsyncTokenVault:
    """Open a vault by either face; use it by `async with` and await its methods.

    For the sync face nothing is opened before `async with`, where the errors of `open` come out too.
    """
    if face == "async":
        return AsyncTokenVault.open(url, **options)
    return cast("AsyncTokenVault", Threaded(partial(TokenVault.open, url, **options)))


def open_issuer(face: Face, url: Source, **options: Any) -> AsyncTokenIssuer:
    """Open an issuer by either face; use it by `async with` and await its methods."""
    if face == "async":
        return AsyncTokenIssuer.open(url, **options)
    return cast("AsyncTokenIssuer", Threaded(partial(TokenIssuer.open, url, **options)))
