"""Every user who has keys of some kinds, in one order and page by page: Redis has no index that could tell."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence

from tokenkeep.stores.redis.store.database import Database
from tokenkeep.stores.redis.store.names import Whose
from tokenkeep.stores.redis.store.sweeping import Sweep


class Roll:
    """Users in the order of their tags. Read as a whole when gone through from the start, and then remembered."""

    def __init__(self, database: Database, kinds: Sequence[bytes], namespace: str | None = None) -> None:
        self._database = database
        self._patterns = [database.names.every(kind, namespace) for kind in kinds]
        self._users: list[Whose] | None = None

    async def past(self, whose: Whose | None) -> Iterator[Whose]:
        """Go through the users behind one; `None` goes through all, as they are now."""
        if whose is None or self._users is None:
            self._users = await self._read()
        users = self._users
        begin = 0 if whose is None else bisect_right(users, whose)
        return (users[place] for place in range(begin, len(users)))

    async def _read(self) -> list[Whose]:
        found: set[Whose] = set()
        for pattern in self._patterns:
            sweep = Sweep(self._database, pattern)
            while (key := await sweep.next()) is not None:
                found.add(self._database.names.whose(key))
        return sorted(found)
