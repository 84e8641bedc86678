"""Group commit: writes that are asked for at the same moment share one transaction."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from tokenkeep.errors import StoreUnavailable
from tokenkeep.ports import Wait, Work

MOST: Final = 500
"""Items in one transaction."""


class _Waiting[T]:
    """An item, and what became of it."""

    __slots__ = ("done", "error", "item")

    def __init__(self, item: T) -> None:
        self.item = item
        self.done = False
        self.error: Exception | None = None


class Batch[T]:
    """Hands the items of concurrent callers to `write` together.

    A caller lays down its item and takes its turn. Whoever has the turn writes all that lies there, so the
    next ones find theirs written. One caller alone waits for nobody. Safe to use from threads.
    """

    def __init__(self, write: Callable[[Sequence[T]], Awaitable[None]], *, wait: Wait, work: Work) -> None:
        self._write = write
        self._wait = wait
        self._work = work
        self._waiting: deque[_Waiting[T]] = deque()

    async def put(self, item: T) -> None:
        """Return when the item is written. What fails, fails for every item of the same transaction.

        An item whose caller is cancelled may be written all the same.
        """
        mine = _Waiting(item)
        self._waiting.append(mine)
        async with self._wait.turn(self):
            while not mine.done:
                await self._work.finish(self._write_next())
        if mine.error is not None:
            raise mine.error

    async def _write_next(self) -> None:
        """Write what lies there. A second turn, for a leader that is cancelled leaves the first while this goes on."""
        async with self._wait.turn((self, "writing")):
            await self._write_batch()

    async def _write_batch(self) -> None:
        batch = [self._waiting.popleft() for _ in range(min(MOST, len(self._waiting)))]
        failure: Exception | None = StoreUnavailable("the write was interrupted; try again")
        try:
            if batch:
                await self._write([waiting.item for waiting in batch])
            failure = None
        except Exception as error:  # noqa: BLE001  # each caller raises it
            failure = error
        finally:
            for waiting in batch:
                waiting.error, waiting.done = failure, True

    def forget(self) -> None:
        """After a fork: what waits is the parent's to write."""
        self._waiting = deque()
