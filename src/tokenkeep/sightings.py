"""What one caller reads serves all who asked before he read it."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from itertools import count

from tokenkeep.ports import Signal


@dataclass(slots=True)
class _Group[T]:
    """Those who ask for the same: one of them leads, the others stand by in the order in which they came."""

    leader: Seeker[T] | None = None
    standing: dict[Seeker[T], None] = field(default_factory=dict)


class Seeker[T]:
    """One who asks, from some moment on: what was read later answers him."""

    __slots__ = ("_found", "_group", "_key", "_read", "_sightings", "_signal", "began")

    def __init__(
        self,
        sightings: Sightings[T],
        key: Hashable,
        group: _Group[T],
        read: Callable[[], Awaitable[T | None]],
        signal: Signal,
    ) -> None:
        self._sightings = sightings
        self._key = key
        self._group = group
        self._read = read
        self._signal = signal
        self._found: T | None = None
        self.began = sightings.next_number()

    @property
    def leads(self) -> bool:
        """Whether it is his to look, and to bring about what he looks for."""
        return self._group.leader is self

    async def told(self) -> T | None:
        """Wait; return what the leader has read since this one asked, or `None` when he leads himself now."""
        await self._signal.wait(None)
        found, self._found = self._found, None
        return found

    async def look(self, serves: Callable[[T], bool]) -> T | None:
        """Read; return what serves, and tell all who asked before of it: each judges it for himself."""
        number = self._sightings.next_number()
        found = await self._read()
        if found is None or not serves(found):
            return None
        self._sightings.tell(self._group, found, number)
        return found

    def tell(self, found: T) -> None:
        """Let him go on with what was found."""
        self._found = found
        self._signal.give()

    def leave(self) -> None:
        """Ask no more; if he led, the next one does."""
        self._sightings.leave(self, self._key, self._group)

    def lead(self) -> None:
        """Let him go on as the leader."""
        self._signal.give()


class Sightings[T]:
    """Those who ask at this moment. Each is woken when something was found, and not one by the other.

    Safe to use from threads.
    """

    def __init__(self, signal: Callable[[], Signal]) -> None:
        self._signal = signal
        self._numbers = count(1)
        self.forget()

    def next_number(self) -> int:
        """Count moments."""
        return next(self._numbers)

    def seek(self, key: Hashable, read: Callable[[], Awaitable[T | None]]) -> Seeker[T]:
        """Begin to ask for what is under a key."""
        with self._guard:
            group = self._groups.setdefault(key, _Group())
            seeker = Seeker(self, key, group, read, self._signal())
            if group.leader is None:
                group.leader = seeker
            else:
                group.standing[seeker] = None
        return seeker

    def tell(self, group: _Group[T], found: T, number: int) -> None:
        """Tell those who asked before that moment."""
        with self._guard:
            told = [seeker for seeker in group.standing if seeker.began < number]
        for seeker in told:
            seeker.tell(found)

    def leave(self, seeker: Seeker[T], key: Hashable, group: _Group[T]) -> None:
        """Let the next one lead where the leader leaves, and forget those for whom nobody is left."""
        with self._guard:
            group.standing.pop(seeker, None)
            if group.leader is not seeker:
                return
            group.leader = heir = next(iter(group.standing), None)
            if heir is None:
                self._groups.pop(key, None)
            else:
                del group.standing[heir]
        if heir is not None:
            heir.lead()

    def forget(self) -> None:
        """After a fork: those who ask are the parent's."""
        self._guard = threading.Lock()
        self._groups: dict[Hashable, _Group[T]] = {}
