"""Going from user to user, over every server: what a namespace-wide question does here, for there is no index."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, Final

from tokenkeep._stepping import settle
from tokenkeep.stores.redis.store.database import Database
from tokenkeep.stores.redis.store.errors import DRIVERS, is_passing

_PAGE: Final = 500
_TRIES: Final = 50
_PAUSE: Final = 0.1


class Sweep:
    """Finds every key of a kind once.

    SCAN finds whatever is there from its beginning to its end, as long as it is one process that answers. So when
    a server was lost, or the masters at the end are not those of the beginning, everything is searched once more.
    """

    def __init__(self, database: Database, pattern: bytes) -> None:
        self._database = database
        self._pattern = pattern
        self._found: deque[bytes] = deque()
        self._seen: set[bytes] = set()
        self._nodes: deque[Any] = deque()
        self._processes: set[object] = set()
        self._cursor = 0
        self._is_over = False
        self._tries = 0

    async def next(self) -> bytes | None:
        """Return another key; `None` when that was all."""
        while not self._found:
            if self._is_over:
                return None
            try:
                await self._search()
            except DRIVERS as error:
                failure, is_final = self._database.failed(error), not is_passing(error)
                self._begin_again()
                if is_final or self._tries > _TRIES:
                    raise failure from None
                await self._database.sleep(_PAUSE)
        return self._found.popleft()

    def put_back(self, key: bytes) -> None:
        """Let a key be the next once more."""
        self._found.appendleft(key)

    async def _search(self) -> None:
        if not self._nodes:
            self._nodes.extend(await self._database.clients.nodes())
            self._processes = await _processes(self._nodes)
        cursor, keys = await settle(
            self._nodes[0].execute_command("SCAN", self._cursor, "MATCH", self._pattern, "COUNT", _PAGE)
        )
        new = [key for key in dict.fromkeys(keys) if key not in self._seen]
        self._seen.update(new)
        self._found.extend(new)
        self._cursor = int(cursor)
        if not self._cursor:
            self._nodes.popleft()
            if not self._nodes:
                self._is_over = self._processes == await _processes(await self._database.clients.nodes())
                self._tries += not self._is_over

    def _begin_again(self) -> None:
        self._nodes.clear()
        self._cursor = 0
        self._tries += 1


async def _processes(nodes: Iterable[Any]) -> set[object]:
    """Return the names that servers have from their start to their end."""
    return {(await settle(node.execute_command("INFO", "server"))).get("run_id") for node in nodes}


class Sweeps:
    """Sweeps that were begun and are gone on with, each under a name; the oldest is dropped when there are many."""

    _MOST: Final = 8

    def __init__(self, database: Database) -> None:
        self._database = database
        self._begun: dict[object, Sweep] = {}

    def take(self, name: object, pattern: bytes) -> Sweep:
        """Take a sweep that was left under a name, or begin one."""
        return self._begun.pop(name, None) or Sweep(self._database, pattern)

    def leave(self, name: object, sweep: Sweep) -> None:
        """Leave a sweep for whoever comes next."""
        self._begun[name] = sweep
        while len(self._begun) > self._MOST:
            self._begun.pop(next(iter(self._begun)), None)
