"""Moving a whole store into another one, and proving that it arrived."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

from tokenkeep.errors import StoreError
from tokenkeep.ports import Room, Row, Transferable

BATCH: Final = 500

_OF_NOW: Final[Mapping[Room, Mapping[str, Any]]] = {Room.LEASES: {"owner": None, "until": 0}}
"""What is true of the old place only: nobody holds a lease in the new one."""

_OF_THE_PLACE: Final[Mapping[Room, frozenset[str]]] = {Room.KEYS: frozenset({"created_at"})}
"""What may differ: the new place may have met the same key before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """What became of one kind of row.

    Attributes:
        rows: how many there are, in both places.
        added: how many of them this call added.
        digest: of all rows, whatever their order; the same in both places.
    """

    rows: int
    added: int
    digest: str


class Copying:
    """From one store to another, in batches, each a transaction: safe to interrupt and to repeat.

    Nothing is unsealed. A sealed value is bound to its row's id and account, which move with it, so the
    programs at the new place need the same keys. Nobody should write meanwhile: it would be noticed at the end.
    """

    def __init__(self, source: Transferable, target: Transferable) -> None:
        self._source = source
        self._target = target

    async def run(self, progress: Callable[[int, int], object] | None = None) -> dict[Room, Copied]:
        """Copy what is missing, then compare everything.

        Args:
            progress: called with the rows that are done and all there are; comparing counts as much as copying.

        Raises:
            StoreError: the target holds rows of its own, or in the end the two are not the same.
        """
        counts = {room: await self._source.count_rows(room) for room in Room}
        await self._check_room(counts)
        total, done, added = 2 * sum(counts.values()), 0, dict.fromkeys(Room, 0)
        for room in Room:
            async for rows in gathered(batches(self._source, room), self._target.together):
                added[room] += await self._target.add_rows(room, [{**row, **_OF_NOW.get(room, {})} for row in rows])
                done = _told(progress, done + len(rows), total)
        return {room: await self._compared(room, added[room], progress, total) for room in Room}

    async def _check_room(self, counts: Mapping[Room, int]) -> None:
        for room, count in counts.items():
            if await self._target.count_rows(room) > count:
                msg = (
                    f"the target holds more rows of {room.value} than the source, so some are its own; "
                    "copy into an empty database"
                )
                raise StoreError(msg)

    async def _compared(
        self, room: Room, added: int, progress: Callable[[int, int], object] | None, total: int
    ) -> Copied:
        here, there = await summed(self._source, room), await summed(self._target, room)
        _told(progress, total, total)
        if here != there:
            msg = (
                f"the rows of {room.value} are not the same in both places ({here[0]} and {there[0]}); stop every "
                "program that writes to either, empty the target, and copy again"
            )
            raise StoreError(msg)
        return Copied(rows=here[0], added=added, digest=here[1])


async def batches(store: Transferable, room: Room) -> AsyncIterator[list[Row]]:
    """Yield all rows of a kind."""
    after: Row | None = None
    while rows := await store.read_rows(room, after=after, limit=BATCH):
        yield rows
        after = rows[-1]


async def gathered(some: AsyncIterator[list[Row]], count: int) -> AsyncIterator[list[Row]]:
    """Yield the rows of batches in batches of at least so many."""
    rows: list[Row] = []
    async for more in some:
        rows += more
        if len(rows) >= count:
            yield rows
            rows = []
    if rows:
        yield rows


async def summed(store: Transferable, room: Room) -> tuple[int, str]:
    """Return how many rows there are, and a digest of them in which their order does not count."""
    count = total = 0
    async for rows in batches(store, room):
        count += len(rows)
        total += sum(_number(room, row) for row in rows)
    return count, (total % 2**256).to_bytes(32).hex()


def _number(room: Room, row: Row) -> int:
    place = _OF_THE_PLACE.get(room, frozenset())
    counted = {name: value for name, value in {**row, **_OF_NOW.get(room, {})}.items() if name not in place}
    return int.from_bytes(sha256(json.dumps(_canonical(counted), sort_keys=True).encode()).digest())


def _canonical(value: Any) -> Any:
    """Write a value so that it reads the same from every database: `jsonb` makes 1e22 a whole number."""
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, datetime):
        return {"instant": value.isoformat()}
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    return value


def _told(progress: Callable[[int, int], object] | None, done: int, total: int) -> int:
    if progress is not None:
        progress(done, total)
    return done
