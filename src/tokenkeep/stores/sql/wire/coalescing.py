"""Look-ups that wait at the same moment share one query."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

MOST: Final = 500
"""Keys in one query."""

FEW: Final = 8
"""So few keys are not divided between two free lanes: the second query would cost more than it saves."""

type Key = tuple[str | bytes, ...]
type Row = Sequence[Any] | None
type Send[Q] = Callable[[Q, Sequence[Key]], Awaitable[Sequence[Row]]]
"""Asks a question for some keys in one query; the rows come in the order of the keys."""

type _Waiting[Q] = tuple[Q, Key, asyncio.Future[Row]]


class Coalescer[Q]:
    """Hands the keys of concurrent callers to `lanes` queries at a time.

    A caller who is alone asks for his key at once. Others join the next query, never one that was already sent, so
    that each sees every commit before it asked. It is sent at the end of the turn of the event loop, so that all who
    were woken by one answer are in it. A crowd is divided between the lanes: while one of them is answered, those who
    were woken by the other can work. An error goes to all who shared the query; the cancellation of one disturbs none.

    It lives in one event loop.
    """

    def __init__(self, lanes: Sequence[Send[Q]]) -> None:
        self._loop = asyncio.get_running_loop()
        self._lanes = len(lanes)
        self._free = list(lanes)
        self._waiting: list[_Waiting[Q]] = []
        self._asked = 0
        self._crowd = 0
        self._called = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def find(self, question: Q, key: Key) -> Row:
        """Return the row of a key, or `None`."""
        if self._crowd > 1 or self._waiting or len(self._free) < self._lanes:
            future: asyncio.Future[Row] = self._loop.create_future()
            self._waiting.append((question, key, future))
            self._call()
            return await future
        lane = self._free.pop()
        try:
            return (await lane(question, (key,)))[0]
        finally:
            self._leave(lane)

    def _leave(self, lane: Send[Q]) -> None:
        self._free.append(lane)
        if self._waiting:
            self._call()

    def _call(self) -> None:
        """See to it that those who wait are served at the end of this turn of the loop."""
        if self._free and not self._called:
            self._called = True
            self._loop.call_soon(self._serve)

    def _serve(self) -> None:
        self._called = False
        self._waiting = [item for item in self._waiting if not item[2].done()]
        self._crowd = max(len(self._waiting) + self._asked, self._crowd - 1)
        share = min(MOST, max(FEW, -(-self._crowd // self._lanes)))
        while self._free and self._waiting:
            task = asyncio.Task(self._share(self._free.pop(), self._batch(share)), loop=self._loop, eager_start=True)
            if not task.done():
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def _batch(self, share: int) -> Sequence[_Waiting[Q]]:
        """Take those who wait for the answer to the same question, as many as one query is to have."""
        waiting, question = self._waiting, self._waiting[0][0]
        same = [item for item in waiting if item[0] is question]
        batch, rest = same[:share], same[share:]
        others = [] if len(same) == len(waiting) else [item for item in waiting if item[0] is not question]
        self._waiting = others + rest
        return batch

    async def _share(self, lane: Send[Q], batch: Sequence[_Waiting[Q]]) -> None:
        self._asked += len(batch)
        try:
            rows = await lane(batch[0][0], [key for _, key, _ in batch])
        except BaseException as error:
            for _, _, future in batch:
                if not future.done():
                    future.set_exception(error) if isinstance(error, Exception) else future.cancel()
            if not isinstance(error, Exception):
                raise
        else:
            for (_, _, future), row in zip(batch, rows, strict=True):
                if not future.done():
                    future.set_result(row)
        finally:
            self._asked -= len(batch)
            self._leave(lane)

    async def finish(self) -> None:
        """Wait for what is being asked."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
