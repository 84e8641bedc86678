"""One at a time for each key."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable


class Turns[L]:
    """A lock for each key, made when first wanted and dropped when nobody wants it any more."""

    def __init__(self, new_lock: Callable[[], L]) -> None:
        self._new_lock = new_lock
        self._guard = threading.Lock()
        self._locks: dict[Hashable, tuple[L, int]] = {}

    def want(self, key: Hashable) -> L:
        with self._guard:
            lock, wanted = self._locks.get(key) or (self._new_lock(), 0)
            self._locks[key] = (lock, wanted + 1)
        return lock

    def leave(self, key: Hashable) -> None:
        with self._guard:
            lock, wanted = self._locks.pop(key)
            if wanted > 1:
                self._locks[key] = (lock, wanted - 1)
