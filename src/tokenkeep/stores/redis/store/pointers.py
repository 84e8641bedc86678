"""From a token's id to its user, and so to the slot where everything of it lies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from tokenkeep._kept import Kept
from tokenkeep.stores.redis.store.database import Database
from tokenkeep.stores.redis.store.names import Whose

_KEPT: Final = 100_000
_TOGETHER: Final = 500


class Pointers:
    """Keys that say to whom a token belongs. That never changes, so this process may remember it.

    They are written before what they lead to and removed after it: one may lead to nothing, which is no token,
    but no token is without one. Keys are those of `Names.to_token` or `Names.to_issued`.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._kept: Kept[bytes, Whose] = Kept(_KEPT)

    async def find(self, key: bytes) -> Whose | None:
        """Return whose a token is; `None` when there is no such token."""
        known = self._kept.get(key)
        if known is not None:
            return known
        tag = await self._database.get(key)
        if tag is None:
            return None
        self._kept.keep(key, whose := Whose(tag))
        return whose

    def know(self, key: bytes, whose: Whose) -> None:
        """Remember what was read elsewhere."""
        self._kept.keep(key, whose)

    async def put(self, keys: Sequence[bytes], whose: Whose) -> None:
        """Write where tokens lead, before they are there."""
        for some in self._together(keys):
            await self._database.ask("MSET", *(word for key in some for word in (key, whose.tag)))
        for key in keys:
            self._kept.keep(key, whose)

    async def remove(self, keys: Sequence[bytes]) -> None:
        """Take away what leads to tokens that are gone."""
        for key in keys:
            self._kept.pop(key, None)
        for some in self._together(keys):
            await self._database.ask("UNLINK", *some)

    def _together(self, keys: Sequence[bytes]) -> Iterable[Sequence[bytes]]:
        """Cut keys into those of one command: on a cluster each lies in a slot of its own."""
        together = 1 if self._database.in_cluster else _TOGETHER
        return (keys[begin : begin + together] for begin in range(0, len(keys), together))
