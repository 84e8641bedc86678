"""Small jobs at their time, in one thread for all of them."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

_LINGER: Final = 10.0
"""Seconds the thread waits for another job before it ends."""


class Alarms:
    """Run jobs when they are due, one after the other, in a thread that lives while there are any.

    A job that raises is over; what it has to say it must keep itself. Safe to use from threads.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._thread: threading.Thread | None = None
        self._wakes_at = 0.0
        self._closing = False

    def set(self, job: Callable[[], object], seconds: float) -> int:
        """Run `job` once, `seconds` from now; return a number to cancel it by."""
        with self._changed:
            self._closing = False
            number, at = next(self._numbers), time.monotonic() + seconds
            heapq.heappush(self._due, (at, number, job))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="tokenkeep-alarms", daemon=True)
                self._thread.start()
            elif at < self._wakes_at:  # otherwise it looks in time by itself
                self._changed.notify()
        return number

    def cancel(self, number: int) -> None:
        """Forget a job, unless it has begun."""
        with self._changed:
            self._due = [due for due in self._due if due[1] != number]
            heapq.heapify(self._due)

    def close(self) -> None:
        """Forget every job, and wait for the one that has begun."""
        with self._changed:
            self._due, self._closing = [], True
            thread = self._thread
            self._changed.notify()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while (job := self._next()) is not None:
            with suppress(Exception):
                job()

    def _next(self) -> Callable[[], object] | None:
        """Wait for the next job that is due; `None` when there has been nothing to wait for."""
        with self._changed:
            for lingered in (False, True):
                while self._due:
                    wait = self._due[0][0] - time.monotonic()
                    if wait <= 0:
                        return heapq.heappop(self._due)[2]
                    self._sleep(wait)
                if not (lingered or self._closing):
                    self._sleep(_LINGER)
            self._thread = None
            return None

    def _sleep(self, seconds: float) -> None:
        self._wakes_at = time.monotonic() + seconds
        self._changed.wait(seconds)
        self._wakes_at = 0.0
