"""Adding whole rows: those of a user by one script for each kind, which adds what is not there yet."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from tokenkeep.ports import Room, Row
from tokenkeep.stores.redis.store.database import Argument, Database
from tokenkeep.stores.redis.store.events import Owner
from tokenkeep.stores.redis.store.leases import STEPS_KEPT
from tokenkeep.stores.redis.store.names import Names, Whose
from tokenkeep.stores.redis.store.pointers import Pointers
from tokenkeep.stores.redis.store.rows import (
    event_arguments,
    head_arguments,
    issued_arguments,
    lease_arguments,
    owner_of,
    token_arguments,
)
from tokenkeep.stores.redis.store.scripts import Script, script
from tokenkeep.stores.rows import Flat, suspicion_of_a_row, to_flat


class _Way(NamedTuple):
    """How the rows of a kind get to a user: a script, its keys, what it takes for a row, and where ids lead from."""

    script: Script
    keys: Callable[[Names, Whose], list[bytes]]
    arguments: Callable[[Row], list[Argument]]
    has_owner: bool = True
    leading: Callable[[Names, Row], bytes] | None = None


_WAYS: Final[Mapping[Room, _Way]] = {
    Room.LEASES: _Way(script("bring_leases"), lambda names, whose: [names.place(whose)], lease_arguments),
    Room.TOKENS: _Way(
        script("bring_tokens"),
        lambda names, whose: [names.place(whose), names.history(whose), names.order(whose)],
        token_arguments,
        leading=lambda names, row: names.to_token(row["id"]),
    ),
    Room.ISSUED: _Way(
        script("bring_issued"),
        lambda names, whose: [names.issued(whose), names.by_end(whose), names.living(whose)],
        issued_arguments,
        has_owner=False,
        leading=lambda names, row: names.to_issued(row["id"]),
    ),
    Room.AUDIT: _Way(script("bring_events"), lambda names, whose: [names.trail(whose)], event_arguments),
    Room.HEADS: _Way(script("bring_head"), lambda names, whose: [names.chain(whose)], head_arguments, has_owner=False),
}


class Bringing:
    """Adds rows that come from another store."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._names = database.names
        self._pointers = Pointers(database)

    async def add(self, room: Room, rows: Sequence[Row]) -> int:
        """Add those that are not there yet; return how many."""
        match room:
            case Room.KEYS:
                return sum([await self._add_key(row) for row in _checked(room, rows)])
            case Room.STEPS:
                return sum([await self._add_step(row) for row in _checked(room, rows)])
            case _:
                return await self._bring(room, _WAYS[room], rows)

    async def _add_key(self, key: Flat) -> int:
        value = f"{key['check_value'].hex()} {key['created_at']}"
        return int(await self._database.ask("HSETNX", self._names.keys, key["key_id"], value))

    async def _add_step(self, step: Flat) -> int:
        key = self._names.step(step["account"])
        return int(bool(await self._database.ask("SET", key, step["step"], "PX", STEPS_KEPT, "NX")))

    async def _bring(self, room: Room, way: _Way, rows: Sequence[Row]) -> int:
        """Add what belongs to users, each user's by one script."""
        with suspicion_of_a_row(room):
            by_user: dict[Owner, list[tuple[Row, list[Argument]]]] = defaultdict(list)
            for row in rows:
                by_user[owner_of(row)].append((row, way.arguments(row)))
        added = 0
        for owner, theirs in by_user.items():
            whose = Whose.of(*owner)
            if way.leading is not None:
                await self._pointers.put([way.leading(self._names, row) for row, _ in theirs], whose)
            words = [word for _, arguments in theirs for word in arguments]
            first = [owner.text()] if way.has_owner else []
            added += int(await self._database.run(way.script, way.keys(self._names, whose), *first, *words))
        return added


def _checked(room: Room, rows: Sequence[Row]) -> list[Flat]:
    with suspicion_of_a_row(room):
        return [to_flat(room, row) for row in rows]
