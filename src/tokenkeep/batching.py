"""Group commit: writes that are asked for at the same moment share one transaction."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from tokenkeep.errors import StoreUnavailable
from tokenkeep.leading import Line
from tokenkeep.ports import Signal, Wait, Work

MOST: Final = 500
"""Items in one transaction."""


class _Waiting[T]:
    """An item, and what became of it. Implements `Standing`."""

    __slots__ = ("done", "error", "item", "leads", "signal", "wake")

    def __init__(self, item: T, signal: Signal) -> None:
        self.item = item
        self.signal = signal
        self.wake = signal.give
        self.done = False
        self.leads = False
        self.error: Exception | None = None


class Batch[T]:
    """Hands the items of concurrent callers to `write` together.

    Whoever comes first writes; those who come meanwhile stand in a line, and the first of them then writes for all
    of them. One caller alone waits for nobody. When a transaction fails for the sake of one item each is written by
    itself, so that none suffers for another. Safe to use from threads.
    """

    def __init__(self, write: Callable[[Sequence[T]], Awaitable[None]], *, wait: Wait, work: Work) -> None:
        self._write = write
        self._wait = wait
        self._work = work
        self.forget()

    async def put(self, item: T) -> None:
        """Return when the item is written. A database that cannot be reached fails every item of a transaction.

        An item whose caller is cancelled may be written all the same.
        """
        mine = _Waiting(item, self._wait.signal())
        mine.leads = self._line.join(mine)
        if not mine.leads:
            await self._stand(mine)
        if not mine.done:
            await self._work.finish(self._lead(mine))
        if mine.error is not None:
            raise mine.error

    async def _stand(self, mine: _Waiting[T]) -> None:
        try:
            while not (mine.done or mine.leads):
                await mine.signal.wait(None)
        except BaseException:
            self._line.leave(mine)
            raise

    async def _lead(self, mine: _Waiting[T]) -> None:
        """Write until what one came for is written. It goes on while its caller is cancelled."""
        try:
            while not mine.done:
                async with self._wait.turn(self):  # who else wants the database for himself
                    await self._write_batch()
        finally:
            self._line.hand_over()

    async def _write_batch(self) -> None:
        batch = self._line.take(MOST)
        if batch:
            await self._write_together(batch)

    async def _write_together(self, batch: Sequence[_Waiting[T]]) -> None:
        """Write items in one transaction; when that fails for the sake of one, each by itself."""
        failure: Exception | None = StoreUnavailable("the write was interrupted; try again")
        try:
            await self._write([waiting.item for waiting in batch])
            failure = None
        except Exception as error:  # noqa: BLE001  # each caller raises it
            failure = error
            if len(batch) > 1 and _may_be_of_one(error):
                for waiting in batch:
                    await self._write_together([waiting])
        finally:
            for waiting in batch:
                if not waiting.done:
                    waiting.error, waiting.done = failure, True
                    waiting.wake()

    def forget(self) -> None:
        """After a fork: what waits is the parent's to write."""
        self._line = Line[_Waiting[T]]()


def _may_be_of_one(error: Exception) -> bool:
    """Tell whether it may be one item that was refused; a database that cannot be reached takes none of them."""
    return not isinstance(error, StoreUnavailable) or error.contention
