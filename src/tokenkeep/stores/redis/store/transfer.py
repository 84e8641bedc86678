"""Moving a whole store into Redis or out of it, user by user.

SQL numbers events: one that came from there keeps its number as the second half of its entry's id, `0-number`. The
others are numbered when they are read, behind those, in the order of users and of each trail. As long as nobody writes,
an event has the same number each time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Final

from tokenkeep.ports import Room, Row
from tokenkeep.stores.redis.store.bringing import Bringing
from tokenkeep.stores.redis.store.database import Database
from tokenkeep.stores.redis.store.events import Owner, chain, link, place_of
from tokenkeep.stores.redis.store.names import Whose
from tokenkeep.stores.redis.store.rolls import Roll
from tokenkeep.stores.redis.store.rows import (
    event_row,
    head_row,
    issued_row,
    lease_rows,
    owner_of,
    token_in_history,
    token_in_place,
)
from tokenkeep.stores.redis.store.sweeping import Sweep
from tokenkeep.stores.redis.store.values import pairs, suspicion
from tokenkeep.stores.rows import to_row

_PAGE: Final = 500
_LAST_NUMBER: Final = b"0-%d" % (2**64 - 1)


_COUNTED: Final[Mapping[Room, tuple[tuple[bytes, bytes], ...]]] = {
    Room.LEASES: ((b"a", b"fence:"),),
    Room.TOKENS: ((b"a", b"D"), (b"h", b"D")),
    Room.ISSUED: ((b"i", b"D"),),
    Room.HEADS: ((b"c", b"sequence"),),
}
"""The hashes of a user in which rows are, and how a field begins that each row has once."""


class RedisTransfer:
    """Implements `Transferable`."""

    together = 500

    def __init__(self, database: Database) -> None:
        self._database = database
        self._names = database.names
        self._bringing = Bringing(database)
        self._begun: dict[Room, _Reading] = {}

    # --- counting

    async def count_rows(self, room: Room) -> int:
        match room:
            case Room.KEYS:
                return int(await self._database.ask("HLEN", self._names.keys))
            case Room.STEPS:
                return len(await self._steps())
            case Room.AUDIT:
                return sum([int(await self._database.ask("XLEN", trail)) async for trail in self._every(b"e")])
            case _:
                return sum([await self._count(kind, field) for kind, field in _COUNTED[room]])

    async def _count(self, kind: bytes, prefix: bytes) -> int:
        """Count the fields that begin so, in the hashes of a kind of every user."""
        total = 0
        async for key in self._every(kind):
            total += sum(field.startswith(prefix) for field in await self._database.ask("HKEYS", key))
        return total

    async def _every(self, kind: bytes) -> AsyncIterator[bytes]:
        sweep = Sweep(self._database, self._names.every(kind))
        while (key := await sweep.next()) is not None:
            yield key

    async def _steps(self) -> list[bytes]:
        sweep = Sweep(self._database, self._names.every_step())
        found = []
        while (key := await sweep.next()) is not None:
            found.append(key)
        return sorted(found)

    # --- reading

    async def read_rows(self, room: Room, *, after: Row | None, limit: int) -> list[Row]:
        reading = self._begun.pop(room, None)  # one that fails is not gone on with
        with suspicion(self._database.name):
            if after is None or reading is None or reading.last != after:
                reading = _Reading(self._read(room))
                await reading.go_past(after)
            rows = await reading.next(limit)
        self._begun[room] = reading
        return rows

    def _read(self, room: Room) -> AsyncIterator[Row]:
        readers: Mapping[Room, Callable[[], AsyncIterator[Row]]] = {
            Room.KEYS: self._read_keys,
            Room.STEPS: self._read_steps,
            Room.LEASES: self._read_leases,
            Room.TOKENS: self._read_tokens,
            Room.ISSUED: self._read_issued,
            Room.AUDIT: self._read_events,
            Room.HEADS: self._read_heads,
        }
        return readers[room]()

    async def _read_keys(self) -> AsyncIterator[Row]:
        held = pairs(await self._database.ask("HGETALL", self._names.keys))
        for key_id in sorted(held):
            check_value, at = held[key_id].split()
            flat = {
                "key_id": key_id.decode(),
                "check_value": bytes.fromhex(check_value.decode()),
                "created_at": int(at),
            }
            yield to_row(Room.KEYS, flat)

    async def _read_steps(self) -> AsyncIterator[Row]:
        for key in await self._steps():
            step = await self._database.get(key)
            if step is not None:  # else it was forgotten meanwhile
                yield to_row(Room.STEPS, {"account": self._names.account_of_step(key), "step": int(step)})

    async def _read_leases(self) -> AsyncIterator[Row]:
        async for whose, held in self._hashes(b"a"):
            if any(field.startswith(b"fence:") for field in held):
                for row in lease_rows(held, Owner.read(held.get(b"user"))):
                    yield _owned(whose, row)

    async def _read_tokens(self) -> AsyncIterator[Row]:
        async for whose, held in self._hashes(b"a"):
            for slot in _documents(held):
                yield _owned(whose, token_in_place(held, slot))
        async for whose, held in self._hashes(b"h"):
            kept = pairs(await self._database.ask("HGETALL", self._names.place(whose)))
            for token_id in _documents(held):
                yield _owned(whose, token_in_history(held, token_id, kept))

    async def _read_issued(self) -> AsyncIterator[Row]:
        async for whose, held in self._hashes(b"i"):
            for token_id in _documents(held):
                yield _owned(whose, issued_row(held, token_id))

    async def _read_heads(self) -> AsyncIterator[Row]:
        async for whose, held in self._hashes(b"c"):
            yield _owned(whose, head_row(Owner.read(held.get(b"user")), chain(held)))

    async def _hashes(self, kind: bytes) -> AsyncIterator[tuple[Whose, dict[bytes, bytes]]]:
        async for whose in self._users(kind):
            yield whose, pairs(await self._database.ask("HGETALL", self._names.of(whose, kind)))

    async def _users(self, kind: bytes) -> AsyncIterator[Whose]:
        for whose in await Roll(self._database, [kind]).past(None):
            yield whose

    async def _read_events(self) -> AsyncIterator[Row]:
        number = await self._highest_number()
        async for whose in self._users(b"e"):
            async for entry_id, fields in self._entries(self._names.trail(whose)):
                known = link(Owner.read(fields.get(b"user")), entry_id, fields)
                if entry_id.startswith(b"0-"):
                    yield _owned(whose, event_row(known, known.place))
                else:
                    number += 1
                    yield _owned(whose, event_row(known, number))

    async def _highest_number(self) -> int:
        highest = 0
        async for whose in self._users(b"e"):
            rows = await self._database.ask("XREVRANGE", self._names.trail(whose), _LAST_NUMBER, "-", "COUNT", 1)
            highest = max([highest, *(place_of(entry_id) for entry_id, _ in rows)])
        return highest

    async def _entries(self, trail: bytes) -> AsyncIterator[tuple[bytes, dict[bytes, bytes]]]:
        past = b"-"
        while rows := await self._database.ask("XRANGE", trail, past, "+", "COUNT", _PAGE):
            for entry_id, fields in rows:
                yield entry_id, pairs(fields)
            past = b"(" + rows[-1][0]

    # --- adding

    async def add_rows(self, room: Room, rows: Sequence[Row]) -> int:
        return await self._bringing.add(room, rows)


class _Reading:
    """Rows that are read one after another; it is gone on with where it was left."""

    def __init__(self, rows: AsyncIterator[Row]) -> None:
        self._rows = rows
        self.last: Row | None = None

    async def go_past(self, row: Row | None) -> None:
        """Pass over everything up to a row."""
        self.last = row
        if row is not None:
            async for passed in self._rows:
                if passed == row:
                    return

    async def next(self, limit: int) -> list[Row]:
        """Return the next rows."""
        found: list[Row] = []
        async for row in self._rows:
            found.append(row)
            if len(found) == limit:
                break
        self.last = found[-1] if found else self.last
        return found


def _documents(held: Mapping[bytes, bytes]) -> list[bytes]:
    return sorted(field[1:] for field in held if field.startswith(b"D"))


def _owned(whose: Whose, row: Row) -> Row:
    if Whose.of(*owner_of(row)) != whose:
        msg = "a row stands where it does not belong"
        raise ValueError(msg)
    return row
