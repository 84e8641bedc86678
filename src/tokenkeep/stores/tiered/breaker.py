"""Leaving a cache alone for a while after it failed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

_logger: Final = logging.getLogger("tokenkeep")


class Breaker:
    """Open after a failure for `cool_down` seconds; then one caller tries, and the others wait for how it went.

    Safe to use from threads.

    Args:
        name: what the log calls the cache.
        monotonic: seconds of a clock that is never set.
    """

    def __init__(self, name: str, *, cool_down: float, monotonic: Callable[[], float]) -> None:
        self._name = name
        self._cool_down = cool_down
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._round = 0
        self._until: float | None = None
        self.reason: str | None = None

    def enter(self) -> int | None:
        """Return a number to be shown to `well`, or `None`: leave the cache alone."""
        if self._until is None:
            return self._round
        with self._lock:
            if self._until is None:
                return self._round
            if self._monotonic() < self._until:
                return None
            self._until = self._monotonic() + self._cool_down
            self._round += 1
            return self._round

    def well(self, entered: int) -> None:
        """The cache answered somebody who entered; whoever entered before the last failure proves nothing."""
        if self._until is None:
            return
        with self._lock:
            if self._until is None or entered != self._round:
                return
            self._until = self.reason = None
        _logger.warning("the %s tier answers again and is used again", self._name)

    def failed(self, reason: str) -> None:
        """The cache failed: leave it alone from now on."""
        with self._lock:
            first = self.reason is None
            self.reason = reason
            self._round += 1
            self._until = self._monotonic() + self._cool_down
        if first:
            _logger.warning(
                "the %s tier %s; the durable store answers alone, the tier is tried again in %.1f seconds",
                self._name,
                reason,
                self._cool_down,
            )
