"""Whoever comes first works for all who come meanwhile."""

from __future__ import annotations

import threading
from collections import deque
from typing import Protocol


class Standing(Protocol):
    """One who stands in the line.

    Attributes:
        leads: it is his to work for the others now.
    """

    leads: bool

    def wake(self) -> object:
        """Let him go on: what he wanted is done, or he leads. Safe to call before he waits."""


class Line[S: Standing]:
    """Who waits for a thing that one does for all.

    One leads: he takes what stands in the line, does it, wakes those whose it was, and hands over to the first of
    those who came meanwhile. Each is woken once, and nobody queues up to find that nothing is left for him to do.
    Nothing here waits. Safe to use from threads.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._standing: deque[S] = deque()
        self._led = False

    def join(self, one: S) -> bool:
        """Stand in the line; `True`: nobody leads, so it is his to do it now."""
        with self._guard:
            self._standing.append(one)
            leads, self._led = not self._led, True
        return leads

    def take(self, most: int) -> list[S]:
        """Take who stands there, in the order in which they came."""
        with self._guard:
            return [self._standing.popleft() for _ in range(min(most, len(self._standing)))]

    def end(self) -> bool:
        """Stop to lead if nobody stands there; otherwise go on."""
        with self._guard:
            self._led = bool(self._standing)
        return not self._led

    def hand_over(self) -> None:
        """Let the next one lead."""
        with self._guard:
            self._led = bool(self._standing)
            if self._led:
                heir = self._standing[0]
                heir.leads = True
                heir.wake()

    def abandon(self) -> None:
        """Lead no more: the next who comes will."""
        with self._guard:
            self._led = False

    def leave(self, one: S) -> None:
        """Stand there no more: he was interrupted while he waited."""
        with self._guard:
            if one in self._standing:
                self._standing.remove(one)
        if one.leads:
            self.hand_over()
