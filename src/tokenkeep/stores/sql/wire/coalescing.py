"""Look-ups that wait at the same moment share one query."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

MOST: Final = 500
"""Keys in one query."""

type Key = tuple[str | bytes, ...]
type Row = Sequence[Any] | None
type Send = Callable[[Sequence[Key]], Awaitable[Sequence[Row]]]
"""Asks for some keys in one query; the rows come in the order of the keys."""


class Coalescer:
    """Hands the keys of concurrent callers to `lanes` queries at a time.

    A caller who finds a lane free asks for his key at once. The others join the next query, never one that was
    already sent, so that each sees every commit before it asked. An error goes to all who shared the query; the
    cancellation of one disturbs none.

    It lives in one event loop.
    """

    def __init__(self, lanes: Sequence[Send]) -> None:
        self._free = list(lanes)
        self._waiting: deque[tuple[Key, asyncio.Future[Row]]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    async def find(self, key: Key) -> Row:
        """Return the row of a key, or `None`."""
        if not self._free:
            future: asyncio.Future[Row] = asyncio.get_running_loop().create_future()
            self._waiting.append((key, future))
            return await future
        lane = self._free.pop()
        try:
            [row] = await lane([key])
        finally:
            self._pass_on(lane)
        return row

    def _pass_on(self, lane: Send) -> None:
        """Let those who wait have a lane; in a task of its own, for the one who had it goes his way."""
        if not self._waiting:
            self._free.append(lane)
            return
        task = asyncio.get_running_loop().create_task(self._serve(lane))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, lane: Send) -> None:
        try:
            while self._waiting:
                await self._share(lane)
        finally:
            self._free.append(lane)

    async def _share(self, lane: Send) -> None:
        batch = [self._waiting.popleft() for _ in range(min(MOST, len(self._waiting)))]
        batch = [(key, future) for key, future in batch if not future.done()]
        if not batch:
            return
        try:
            rows = await lane([key for key, _ in batch])
        except BaseException as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error) if isinstance(error, Exception) else future.cancel()
            if not isinstance(error, Exception):
                raise
            return
        for (_, future), row in zip(batch, rows, strict=True):
            if not future.done():
                future.set_result(row)

    async def finish(self) -> None:
        """Wait for what is being asked."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
