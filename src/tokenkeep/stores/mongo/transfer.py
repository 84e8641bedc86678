"""Whole rows, in and out of MongoDB.

Acquired tokens are one kind of row in SQL, those in place and their history: here they are read from both collections,
by their ids. SQL numbers events: an event that came from there keeps its number as its `_id`. The others, which have
an ObjectId, are numbered when they are read, behind those: user by user, each user's in the order of the chain. SQL
tells the order of a chain by those numbers, and an ObjectId does not tell it where several programs wrote. As long as
nobody writes, an event has the same number each time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Final

from bson import ObjectId
from pymongo import UpdateOne

from tokenkeep.errors import StoreError
from tokenkeep.ports import Room, Row
from tokenkeep.stores.mongo.audit import age
from tokenkeep.stores.mongo.database import Calls, Database
from tokenkeep.stores.mongo.documents import Document, literal, suspicion
from tokenkeep.stores.mongo.leases import FORGOTTEN
from tokenkeep.stores.mongo.rows import PLACES, key_in, to_document, to_row
from tokenkeep.stores.mongo.schema import AUDIT, STEP, TOKEN
from tokenkeep.stores.rows import suspicion_of_a_row

_PATIENCE: Final = 600.0
"""Seconds to count: each document is looked at."""

_NUMBERED: Final = {"_id": {"$type": ["int", "long"]}}
_UNNUMBERED: Final = {"_id": {"$gte": ObjectId(bytes(12))}}  # a comparison finds values of its own type only
_CHAIN: Final = ("namespace", "user_id", "sequence")

_TEXT: Final = {"_id": {"$type": "string"}}
_OCTETS: Final = {"_id": {"$type": "binData"}}
_SOUND: Final[Mapping[Room, Document]] = {
    Room.KEYS: _TEXT,
    Room.STEPS: _OCTETS,
    Room.LEASES: _TEXT,
    Room.ISSUED: _OCTETS,
    Room.AUDIT: {
        "$or": [
            _NUMBERED,
            {
                "_id": {"$type": "objectId"},
                "namespace": {"$type": "string"},
                "user_id": {"$type": "string"},
                "$or": [{"sequence": None}, {"sequence": {"$type": ["int", "long"]}}],
            },
        ]
    },
    Room.HEADS: _TEXT,
}
"""What is reached by reading on in the order of keys; anything else would be passed over without a word."""


class MongoTransfer:
    """Implements `Transferable`."""

    together = 500

    def __init__(self, database: Database) -> None:
        self._database = database

    async def count_rows(self, room: Room) -> int:
        total = 0
        for collection in PLACES[room]:
            sound = {"id": {"$type": "string"}} if collection == TOKEN else _SOUND.get(room, _TEXT)
            with self._database.asking(_PATIENCE) as calls:
                lost = await calls.first(collection, {"$nor": [sound]})
                counted = await calls.aggregate(collection, [{"$count": "rows"}])
            with suspicion(self._database.name):
                if lost is not None:
                    msg = "a document whose key is none"
                    raise ValueError(msg)
            total += int(counted[0]["rows"]) if counted else 0
        return total

    # --- reading

    async def read_rows(self, room: Room, *, after: Row | None, limit: int) -> list[Row]:
        with self._database.asking() as calls:
            if room is Room.AUDIT:
                return await self._events(calls, after, limit)
            rows = [row for place in PLACES[room] for row in await self._past(calls, room, place, after, limit)]
        return sorted(rows, key=lambda row: row["id"])[:limit] if room is Room.TOKENS else rows

    async def _past(self, calls: Calls, room: Room, collection: str, after: Row | None, limit: int) -> list[Row]:
        key = _key(collection)
        where = {} if after is None else {key: {"$gt": key_in(room, after)}}
        return self._rows(room, collection, await calls.rows(collection, where, sort=[(key, 1)], limit=limit))

    def _rows(self, room: Room, collection: str, documents: Sequence[Document]) -> list[Row]:
        with suspicion(self._database.name):
            return [to_row(room, document, collection) for document in documents]

    async def _events(self, calls: Calls, after: Row | None, limit: int) -> list[Row]:
        last = await calls.rows(AUDIT, _NUMBERED, sort=[("_id", -1)], limit=1, fields=["_id"])
        highest = last[0]["_id"] if last else 0
        if last and (after is None or after["id"] < highest):
            past = _NUMBERED if after is None else {"_id": {"$gt": after["id"]}}
            return self._rows(Room.AUDIT, AUDIT, await calls.rows(AUDIT, past, sort=[("_id", 1)], limit=limit))
        behind = None if after is None or after["id"] <= highest else after
        documents = await self._unnumbered(calls, behind, limit)
        await self._refuse_beside(calls, documents)
        start = (highest if behind is None else behind["id"]) + 1
        numbered = [{**document, "_id": number} for number, document in enumerate(documents, start)]
        return self._rows(Room.AUDIT, AUDIT, numbered)

    async def _unnumbered(self, calls: Calls, after: Row | None, limit: int) -> list[dict[str, Any]]:
        """Return the next events that have an ObjectId, and with the last of them all that have its place."""
        where: dict[str, Any] = dict(_UNNUMBERED) if after is None else {**_UNNUMBERED, "$or": _behind(after)}
        found = await calls.rows(AUDIT, where, sort=[(name, 1) for name in _CHAIN], limit=limit)
        if len(found) == limit:
            end = _place(found[-1])
            found = [row for row in found if _place(row) != end]
            found += await calls.rows(AUDIT, {**_UNNUMBERED, **dict(zip(_CHAIN, end, strict=True))})
        return [row for _, same in groupby(found, _place) for row in sorted(same, key=lambda row: row["_id"])]

    async def _refuse_beside(self, calls: Calls, documents: Sequence[Document]) -> None:
        """Let no event that was put in after the chain began pass for one from before it, by being numbered so."""
        for (namespace, user_id, sequence), same in groupby(documents, _place):
            if sequence is not None:
                continue
            chained = {"namespace": namespace, "user_id": user_id, "sequence": {"$gt": 0}}
            first = await calls.rows(AUDIT, chained, sort=[("sequence", 1), ("_id", 1)], limit=1)
            if first and any(age(row["_id"]) > age(first[0]["_id"]) for row in same):
                msg = (
                    f"{self._database.name}: an event of the trail is in no chain, though the chain of its user had "
                    "begun; `tokenkeep audit --verify` says where, and nothing is copied until it is gone"
                )
                raise StoreError(msg)

    # --- adding

    async def add_rows(self, room: Room, rows: Sequence[Row]) -> int:
        placed: dict[str, list[dict[str, Any]]] = defaultdict(list)
        with suspicion_of_a_row(room):
            keys = [key_in(room, row) for row in rows]
            for row in rows:
                collection, document = to_document(room, row)
                placed[collection].append(document)

        async def add(calls: Calls) -> int:
            there = await _there(calls, room, keys)
            added = 0
            for collection, documents in placed.items():
                new = [document for document in documents if document[_key(collection)] not in there]
                await _insert(calls, collection, new)
                added += len(new)
            return added

        return await self._database.transact(add)


def _key(collection: str) -> str:
    return "id" if collection == TOKEN else "_id"


async def _there(calls: Calls, room: Room, keys: Sequence[Any]) -> set[Any]:
    there: set[Any] = set()
    for collection in PLACES[room]:
        key = _key(collection)
        there |= {row[key] for row in await calls.rows(collection, {key: {"$in": list(keys)}}, fields=[key])}
    return there


async def _insert(calls: Calls, collection: str, documents: Sequence[dict[str, Any]]) -> None:
    if collection != STEP:
        await calls.insert(collection, documents)
        return
    change = [({"_id": row["_id"]}, {"step": literal(row["step"]), "purge_at": FORGOTTEN}) for row in documents]
    await calls.bulk(STEP, [UpdateOne(this, [{"$set": step}], upsert=True) for this, step in change])


def _place(document: Document) -> tuple[str, str, int | None]:
    return document["namespace"], document["user_id"], document.get("sequence")


def _behind(after: Row) -> list[Document]:
    """Return what comes later in the order of the index of chains."""
    namespace, user_id, sequence = (after[name] for name in _CHAIN)
    later = {"$type": ["int", "long"]} if sequence is None else {"$gt": sequence}
    return [
        {"namespace": {"$gt": namespace}},
        {"namespace": namespace, "user_id": {"$gt": user_id}},
        {"namespace": namespace, "user_id": user_id, "sequence": later},
    ]
