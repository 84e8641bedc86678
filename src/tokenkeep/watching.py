"""Watching a token: each new version once, newest wins.

What is promised rests on reading alone: a watcher reads what is in place each interval. A bell, where the
backend has one, only makes it sooner, and whoever listens reads anew after each connection, so a message that
was lost is made good.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Awaitable, Callable, Collection
from datetime import timedelta
from functools import partial
from typing import Final
from weakref import WeakSet

from tokenkeep.errors import StoreUnavailable
from tokenkeep.model import Account, AcquiredToken
from tokenkeep.ports import Aside, Bell, TokenRecord, Wait, Work

INTERVAL: Final = timedelta(seconds=1)

LOOK: Final = 0.25
"""Seconds of silence after which who listens looks whether anybody still watches."""

_SHORTEST: Final = 0.1
_LONGEST: Final = 10.0
"""Seconds before a broken bell is tried again: at first, and at last."""

_logger = logging.getLogger("tokenkeep")


class Watcher:
    """One who watches one token. Safe to use from several threads or tasks: each version goes to one of them.

    Args:
        look: reads what is in place.
        hand_out: makes of a record what the caller gets; `None` when it is no good any more.
    """

    def __init__(  # what it watches, and by which means
        self,
        watching: Watching,
        account: Account,
        kind: str,
        *,
        interval: timedelta,
        look: Callable[[], Awaitable[TokenRecord | None]],
        hand_out: Callable[[TokenRecord], Awaitable[AcquiredToken | None]],
    ) -> None:
        self.account, self.kind = account, kind
        self._watching = watching
        self._interval = interval.total_seconds()
        self._look = look
        self._hand_out = hand_out
        self._given: set[str] = set()
        self._version = 0
        self._has_read = self._failing = False
        self.ended = False
        self.renew()

    def renew(self) -> None:
        """After a fork: wait for nobody of the parent."""
        self._signal = self._watching.wait.signal()

    def wake(self) -> None:
        """Read now."""
        self._signal.give()

    async def next(self) -> AcquiredToken | None:
        """Return the next version; `None` after the end.

        Raises:
            StoreUnavailable: at the first reading; later ones are repeated until they succeed.
        """
        while not self.ended:
            async with self._watching.wait.turn(self):
                token = None if self.ended else await self._fresh()
            if token is not None:
                return token
            self._watching.listen()
            await self._signal.wait(self._interval)
        self._signal.give()  # there may be others
        return None

    async def _fresh(self) -> AcquiredToken | None:
        """Read; return a version that was not there yet."""
        try:
            token = await self._newer(await self._look())
        except StoreUnavailable as error:
            if not self._has_read:
                raise
            if not self._failing:
                _logger.warning("watching goes on when the store is back: %s", error)
            self._failing = True
            return None
        self._has_read, self._failing = True, False
        return token

    async def _newer(self, record: TokenRecord | None) -> AcquiredToken | None:
        if record is None:
            self._version = 0  # where history was purged too, versions begin anew
            return None
        if record.version < self._version or record.id in self._given:
            return None
        token = await self._hand_out(record)
        if token is not None:
            self._given = {record.id, *(self._given if record.version == self._version else ())}
            self._version = record.version
        return token

    async def close(self) -> None:
        """End it; who waits is told. Safe to repeat."""
        self.ended = True
        self._signal.give()
        async with self._watching.wait.turn(self):
            pass  # a reading that was under way is over
        await self._watching.leave(self)


class Watching:
    """All who watch in one vault, and the one who listens for them."""

    def __init__(self, bell: Bell | None, *, wait: Wait, work: Work) -> None:
        self.wait = wait
        self._bell = bell
        self._work = work
        self._watchers: WeakSet[Watcher] = WeakSet()
        self._closed = False
        self._lock = threading.Lock()
        self._stop = wait.signal()
        self._listener: Aside | None = None
        self._round = 0
        self._forgotten: list[Aside | None] = []

    def add(self, watcher: Watcher) -> Watcher:
        """Let somebody watch, until he leaves or nobody knows him any more."""
        with self._lock:
            self._watchers.add(watcher)
            watcher.ended = self._closed
        return watcher

    def ring(self, account: Account) -> None:
        """Something was put in place by this very vault."""
        for watcher in self._all():
            if watcher.account == account:
                watcher.wake()

    def _all(self) -> list[Watcher]:
        with self._lock:
            return list(self._watchers)

    async def leave(self, watcher: Watcher) -> None:
        """Let nobody be listening when nobody watches."""
        with self._lock:
            self._watchers.discard(watcher)
        await self._quiet()

    async def close(self) -> None:
        """End everything."""
        with self._lock:
            self._closed = True
        for watcher in self._all():
            await watcher.close()
        await self._quiet()

    async def _quiet(self) -> None:
        with self._lock:
            if self._watchers:
                return
            listener, self._listener = self._listener, None
            self._round += 1
        self._stop.give()
        if listener is not None:
            await listener.end()

    def forget(self) -> None:
        """After a fork: who listens, listens in the parent."""
        self._forgotten.append(self._listener)  # what it holds open is the parent's
        self._listener = None
        self._round += 1
        self._lock = threading.Lock()
        self._stop = self.wait.signal()
        for watcher in list(self._watchers):
            watcher.renew()

    # --- the bell ---

    def listen(self) -> None:
        """Have somebody listen, where there is a bell and nobody does."""
        bell = self._bell
        if bell is None:
            return
        with self._lock:
            if self._listener is None or not self._listener.running:
                self._listener = self._work.aside(partial(self._listen, bell, self._round))

    async def _listen(self, bell: Bell, mine: int) -> None:
        """Listen while anybody watches, however often the bell breaks."""
        pause = _SHORTEST
        while self._goes_on(mine):
            try:
                ear = await bell.listen()
                if ear is None:
                    self._bell = None
                    return
                try:
                    self._tell(bell, None)  # of what was said while nobody listened
                    while self._goes_on(mine):
                        self._tell(bell, await ear.heard(LOOK))
                        pause = _SHORTEST
                finally:
                    await ear.close()
            except Exception as error:  # noqa: BLE001  # whatever a driver raises, the watchers go on reading
                _logger.debug("nothing tells of new tokens (%s), so they are looked for", type(error).__name__)
                await self._stop.wait(pause)
                pause = min(pause * 2, _LONGEST)

    def _goes_on(self, mine: int) -> bool:
        return self._round == mine and bool(self._watchers)

    def _tell(self, bell: Bell, topics: Collection[str] | None) -> None:
        if topics is not None and not topics:
            return
        for watcher in self._all():
            if topics is None or bell.topic(watcher.account, watcher.kind) in topics:
                watcher.wake()
