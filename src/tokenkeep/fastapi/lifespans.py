"""What an application opens when it starts, and closes when it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import FastAPI

type Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[Any]]
"""It may yield a mapping, which becomes the state of each request."""


def lifespan(*opened: AbstractAsyncContextManager[Any], inner: Lifespan | None = None) -> Lifespan:
    """Return a lifespan for `FastAPI(lifespan=…)` that starts issuers and vaults, and closes them last first.

    What was counted is written when they close. A database that cannot be used ends the start, not the first
    request. `inner` is the application's own lifespan, which runs while they are open.
    """

    @asynccontextmanager
    async def living(application: FastAPI) -> AsyncIterator[Mapping[str, Any] | None]:
        async with AsyncExitStack() as stack:
            for one in opened:
                await stack.enter_async_context(one)
            yield None if inner is None else await stack.enter_async_context(inner(application))

    return living
