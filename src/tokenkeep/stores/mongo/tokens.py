"""Acquired tokens in MongoDB: what is in place in one collection, what was in another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

from pymongo import UpdateMany, UpdateOne

from tokenkeep.model import Account, EndReason, Statistics, TokenInfo
from tokenkeep.ports import Entry, Right, TokenRecord, Use, may_still_be_good
from tokenkeep.stores.mongo.audit import MongoAudit
from tokenkeep.stores.mongo.database import Calls, Database
from tokenkeep.stores.mongo.documents import Document, at, statistics, suspicion
from tokenkeep.stores.mongo.leases import MongoLeases
from tokenkeep.stores.mongo.records import ended_document, ended_record, info, record, slot, token_document
from tokenkeep.stores.mongo.schema import HISTORY, TOKEN, WISHED
from tokenkeep.stores.plain import to_micros

_NEWEST: Final = [("created_at", -1), ("version", -1)]


class _VersionTaken(Exception):
    """Somebody wrote this version or a newer one: the transaction rolls back. It never leaves the store."""


class MongoTokens:
    """Implements `TokenStore`."""

    def __init__(self, database: Database, audit: MongoAudit, leases: MongoLeases) -> None:
        self._database = database
        self._audit = audit
        self._leases = leases

    # --- what is in place

    async def load(self, account: Account, kind: str) -> TokenRecord | None:
        with self._database.asking() as calls:
            found = await calls.first(TOKEN, {"_id": slot(account, kind)})
        with suspicion(self._database.name):
            return None if found is None else record(found)

    async def loaded(self, account: Account) -> list[TokenRecord]:
        with self._database.asking() as calls:
            rows = await calls.rows(TOKEN, at(account), sort=[("kind", 1)])
        with suspicion(self._database.name):
            return [record(row) for row in rows]

    async def versions(self, account: Account) -> dict[str, int]:
        highest: Document = {"$group": {"_id": "$kind", "version": {"$max": "$version"}}}

        async def read(calls: Calls) -> list[dict[str, Any]]:
            stages = [{"$match": at(account)}, highest]
            return await calls.aggregate(HISTORY, stages) + await calls.aggregate(TOKEN, stages)

        versions: dict[str, int] = {}
        for row in await self._database.transact(read):
            versions[row["_id"]] = max(row["version"], versions.get(row["_id"], 0))
        return versions

    # --- changing

    async def replace(self, records: Sequence[TokenRecord], right: Right, entries: Sequence[Entry]) -> bool:
        async def put(calls: Calls) -> bool:
            if not await self._leases.finish(calls, right):
                return await self._is_known(calls, records[0].id)
            for new in records:
                await self._make_room(calls, new)
            await calls.insert(TOKEN, [token_document(new) for new in records])
            await self._audit.append(calls, right.account, entries)
            return True

        try:
            return await self._database.transact(put)
        except _VersionTaken:
            return False

    async def _is_known(self, calls: Calls, token_id: str) -> bool:
        return bool(
            await calls.first(TOKEN, {"id": token_id}) is not None
            or await calls.first(HISTORY, {"_id": token_id}) is not None
        )

    async def _make_room(self, calls: Calls, new: TokenRecord) -> None:
        """Send what `new` replaces into history."""
        newer = {**at(new.account), "kind": new.kind, "version": {"$gte": new.version}}
        old = await calls.first(TOKEN, {"_id": slot(new.account, new.kind)})
        if (old is not None and old["version"] >= new.version) or await calls.first(HISTORY, newer) is not None:
            raise _VersionTaken
        if old is not None:
            ended = ended_document(old, EndReason.REPLACED, new.created_at)
            await self._move(calls, [old], [ended])

    async def _move(self, calls: Calls, documents: Sequence[Document], ended: Sequence[dict[str, Any]]) -> None:
        """Move documents into history, as what has become of them."""
        await calls.insert(HISTORY, ended)
        if ended:
            await calls.delete(TOKEN, {"_id": {"$in": [old["_id"] for old in documents]}})

    async def reject(self, token_id: str, account: Account, entry: Entry) -> bool:
        async def mark(calls: Calls) -> bool:
            this = {**at(account), "id": token_id}
            found = await calls.first(TOKEN, this)
            if found is None or found["rejected_at"] is not None:
                return False
            await calls.update(TOKEN, {"_id": found["_id"], **this}, {"$set": {"rejected_at": to_micros(entry.at)}})
            await self._audit.append(calls, account, [entry])
            return True

        return await self._database.transact(mark)

    async def revoke(self, account: Account, entry: Callable[[str], Entry], *, wishing: bool) -> int:
        async def end(calls: Calls) -> int:
            await self._leases.break_lease(calls, account)
            rows = await calls.rows(TOKEN, at(account), sort=[("kind", 1)])
            entries = [entry(row["id"]) for row in rows]
            ended = []
            for row, noted in zip(rows, entries, strict=True):
                wished = wishing and may_still_be_good(record(row), noted.at)
                ended.append(ended_document(row, EndReason.REVOKED, noted.at, wished=wished))
            await self._move(calls, rows, ended)
            await self._audit.append(calls, account, entries)
            return len(rows)

        return await self._database.transact(end)

    async def count_uses(self, uses: Sequence[Use]) -> None:
        async def count(calls: Calls) -> None:
            # UpdateMany, because a sharded cluster takes an UpdateOne only by _id or shard key.
            in_place = await calls.bulk(TOKEN, [UpdateMany({"id": use.token_id}, _added_use(use)) for use in uses])
            if in_place < len(uses):
                await calls.bulk(HISTORY, [UpdateOne({"_id": use.token_id}, _added_use(use)) for use in uses])

        if uses:
            await self._database.transact(count)

    # --- what is known without the secrets

    async def history(self, account: Account, *, now: datetime, limit: int) -> list[TokenInfo]:
        return await self._infos(at(account), now, limit)

    async def created_between(
        self, namespace: str, start: datetime, end: datetime, *, user_id: str | None, now: datetime, limit: int
    ) -> list[TokenInfo]:
        where: dict[str, Any] = {
            "namespace": namespace,
            "created_at": {"$gt": to_micros(start) - 1, "$lt": to_micros(end)},  # they are whole numbers
        }
        if user_id is not None:
            where["user_id"] = user_id
        return await self._infos(where, now, limit)

    async def _infos(self, where: Document, now: datetime, limit: int) -> list[TokenInfo]:
        async def read(calls: Calls) -> list[dict[str, Any]]:
            ended = await calls.rows(HISTORY, where, sort=_NEWEST, limit=limit)
            return ended + await calls.rows(TOKEN, where, sort=_NEWEST, limit=limit)

        rows = await self._database.transact(read)
        with suspicion(self._database.name):
            rows.sort(key=lambda row: (row["created_at"], row["version"]), reverse=True)
            return [info(row, now) for row in rows[:limit]]

    async def statistics(self, account: Account, *, kind: str | None, now: datetime) -> Statistics:
        where = {"$match": at(account) if kind is None else {**at(account), "kind": kind}}
        endless = {"$eq": [{"$ifNull": ["$expires_at", None]}, None]}
        alive = [
            {"$eq": [{"$ifNull": ["$rejected_at", None]}, None]},
            {"$or": [endless, {"$gt": ["$expires_at", to_micros(now)]}]},
            {"$eq": [{"$ifNull": ["$ended_at", None]}, None]},
        ]
        figures = {
            "$group": {
                "_id": None,
                "total": {"$sum": 1},
                "active": {"$sum": {"$cond": [{"$and": alive}, 1, 0]}},
                "used": {"$sum": "$usage_count"},
                "made": {"$max": "$created_at"},
                "last": {"$max": "$last_used_at"},
            }
        }

        async def read(calls: Calls) -> list[dict[str, Any]]:
            return await calls.aggregate(TOKEN, [where, figures]) + await calls.aggregate(HISTORY, [where, figures])

        parts = await self._database.transact(read)
        with suspicion(self._database.name):
            return statistics(_added(parts))

    # --- upkeep

    async def purge(
        self, namespace: str, *, expired_before: datetime, ended_before: datetime, limit: int
    ) -> tuple[int, int]:
        ended, expired = {"$lt": to_micros(ended_before)}, {"$lt": to_micros(expired_before)}

        async def clear(calls: Calls) -> tuple[int, int]:
            dead = await calls.rows(HISTORY, {"namespace": namespace, "ended_at": ended}, limit=limit, fields=["_id"])
            gone = await calls.delete(HISTORY, {"_id": {"$in": [row["_id"] for row in dead]}})
            if gone < limit:
                over = {"namespace": namespace, "expires_at": ended}
                dead = await calls.rows(TOKEN, over, limit=limit - gone, fields=["_id"])
                gone += await calls.delete(TOKEN, {"_id": {"$in": [row["_id"] for row in dead]}})
            done = {"namespace": namespace, "expires_at": expired, "refresh_sealed": None}
            spent = await calls.rows(TOKEN, done, limit=limit)
            erased = [ended_document(row, EndReason.EXPIRED, expired_before) for row in spent]
            await self._move(calls, spent, erased)
            return len(spent), gone

        return await self._database.transact(clear)

    async def providers_of(self, namespace: str, user_id: str) -> list[str]:
        stages = [{"$match": {"namespace": namespace, "user_id": user_id}}, {"$group": {"_id": "$provider"}}]
        with self._database.asking() as calls:
            rows = await calls.aggregate(HISTORY, stages) + await calls.aggregate(TOKEN, stages)
        return sorted({row["_id"] for row in rows})

    async def erase(self, account: Account, *, limit: int) -> tuple[int, int]:
        async def clear(calls: Calls) -> tuple[int, int]:
            ended = {**at(account), "revoke_at": None}
            rows = await calls.rows(HISTORY, ended, limit=limit, fields=["_id"])
            gone = await calls.delete(HISTORY, {"_id": {"$in": [row["_id"] for row in rows]}})
            if gone < limit:
                await self._leases.forget_lease(calls, account)
            return gone, len(await calls.rows(HISTORY, {**at(account), "revoke_at": WISHED}, fields=["_id"]))

        return await self._database.transact(clear)

    async def sealed_under(self, key_ids: Sequence[str], *, after: str, limit: int) -> list[TokenRecord]:
        where = {"key_id": {"$in": list(key_ids)}, "id": {"$gt": after}}
        with self._database.asking() as calls:
            rows = await calls.rows(TOKEN, where, sort=[("id", 1)], limit=limit)
            wished = {"revoke_at": WISHED, "key_id": where["key_id"], "_id": where["id"]}
            wishes = await calls.rows(HISTORY, wished, sort=[("_id", 1)], limit=limit)
        with suspicion(self._database.name):
            found = [*map(record, rows), *map(ended_record, wishes)]
        return sorted(found, key=lambda one: one.id)[:limit]

    async def reseal(self, pairs: Sequence[tuple[TokenRecord, TokenRecord]]) -> int:
        in_place, wished = [], []
        for old, new in pairs:
            seen = {"version": old.version, "key_id": old.key_id}
            sealed = {"access_sealed": new.access_sealed, "refresh_sealed": new.refresh_sealed, "key_id": new.key_id}
            place = {"_id": slot(old.account, old.kind), "id": old.id, **seen}
            in_place.append(UpdateOne(place, {"$set": sealed}))
            wished.append(UpdateOne({"_id": old.id, "revoke_at": WISHED, **seen}, {"$set": sealed}))

        async def swap(calls: Calls) -> int:
            swapped = await calls.bulk(TOKEN, in_place)
            return swapped + (await calls.bulk(HISTORY, wished) if swapped < len(pairs) else 0)

        return await self._database.transact(swap)


def _added_use(use: Use) -> Document:
    return {"$inc": {"usage_count": use.count}, "$max": {"last_used_at": to_micros(use.last_used_at)}}


def _added(parts: Sequence[Document]) -> Document | None:
    """Add up the figures of two collections."""
    if not parts:
        return None
    return {
        **{name: sum(part[name] for part in parts) for name in ("total", "active", "used")},
        **{
            name: max((part[name] for part in parts if part[name] is not None), default=None)
            for name in ("made", "last")
        },
    }
