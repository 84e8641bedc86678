"""A dictionary that forgets its oldest entry when it is full."""

from __future__ import annotations

from contextlib import suppress


class Kept[K, V](dict[K, V]):
    """Remember at most `most` entries. Reading is that of a plain dictionary; safe to use from threads."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def keep(self, key: K, value: V) -> None:
        """Remember an entry, in place of the one that was put in first if there are too many."""
        while len(self) >= self._most and key not in self:
            with suppress(KeyError, RuntimeError, StopIteration):  # another thread was faster
                del self[next(iter(self))]
        self[key] = value
