"""A clock that stands still until it is told to move."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Final

from tokenkeep import _checking

START: Final = datetime(2026, 1, 5, 6, 30, tzinfo=UTC)
"""Noon of a Monday in India: no daylight saving, no midnight, no trading day's end is near."""


class FakeClock:
    """Tell the time that the test has set. Hand it to `open(clock=...)`; safe to share between threads."""

    def __init__(self, start: datetime = START) -> None:
        self._lock = threading.Lock()
        self._now = _checking.instant(start, "start")

    def now(self) -> datetime:
        """Return the present of the test, in UTC."""
        with self._lock:
            return self._now

    __call__ = now

    def advance(self, span: timedelta) -> datetime:
        """Move by a span, which may be negative: clocks are set back too. Return the new present."""
        with self._lock:
            self._now += span
            return self._now

    def set(self, moment: datetime) -> datetime:
        """Jump to an aware moment. Return it in UTC."""
        with self._lock:
            self._now = _checking.instant(moment, "moment")
            return self._now

    def __repr__(self) -> str:
        return f"FakeClock({self.now().isoformat()})"
