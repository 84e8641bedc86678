"""Counting uses without a write for each read: summed in the process, flushed in one statement."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from tokenkeep.errors import StoreError
from tokenkeep.ports import Work

FLUSH_INTERVAL: Final = timedelta(seconds=5)
"""The longest time that a use stays in the process alone."""


@dataclass(slots=True)
class Sum:
    """A number of uses, and the time of the last."""

    count: int
    last: datetime


type Sums[K] = Mapping[K, Sum]


class UseCounter[K: Hashable]:
    """Sum uses by key and hand them to `sink` after each interval, and when `flush` is called.

    What the sink could not take stays and is handed over with the next flush. Safe to use from threads.
    """

    def __init__(self, sink: Callable[[Sums[K]], Awaitable[None]], work: Work) -> None:
        self._sink = sink
        self._work = work
        self._lock = threading.Lock()
        self._sums: dict[K, Sum] = {}

    def add(self, key: K, at: datetime) -> int:
        """Count one use; return how many of this key wait to be flushed."""
        with self._lock:
            sums = self._sums
            summed = sums.get(key)
            if summed is not None:  # one that is counted again and again is changed where it lies
                summed.count += 1
                summed.last = at
                return summed.count
            first = not sums
            sums[key] = Sum(1, at)
        if first:
            self._work.later(self._flush_quietly, FLUSH_INTERVAL)
        return 1

    def last(self, key: K) -> datetime | None:
        """Return the last use that waits to be flushed; `None` when there is none."""
        pending = self._sums.get(key)
        return None if pending is None else pending.last

    async def flush(self) -> None:
        """Hand over what was counted; where its caller is cancelled it goes on.

        Raises:
            StoreError: the sink could not take it; nothing is lost, the next flush tries again.
        """
        if self._sums:
            await self._work.finish(self._hand_over())

    async def _hand_over(self) -> None:
        with self._lock:
            sums, self._sums = self._sums, {}
        if not sums:
            return
        try:
            await self._sink(sums)
        except BaseException:
            self._put_back(sums)
            raise

    async def _flush_quietly(self) -> None:
        try:
            await self.flush()
        except StoreError:
            self._work.later(self._flush_quietly, FLUSH_INTERVAL)

    def _put_back(self, sums: Sums[K]) -> None:
        with self._lock:
            for key, old in sums.items():
                new = self._sums.get(key, old)
                count = old.count if new is old else old.count + new.count
                self._sums[key] = Sum(count, max(old.last, new.last))

    def forget(self) -> None:
        """Drop what was counted: after a fork it is the parent's to flush."""
        self._lock = threading.Lock()
        self._sums = {}
