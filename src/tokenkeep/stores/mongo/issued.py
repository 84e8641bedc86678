"""Issued tokens in MongoDB."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from pymongo import UpdateOne

from tokenkeep.buckets import day_of, first_id
from tokenkeep.model import Account, Statistics
from tokenkeep.ports import Entry, Grant, IssuedRecord, Spending
from tokenkeep.stores.mongo.audit import MongoAudit
from tokenkeep.stores.mongo.database import Calls, Database
from tokenkeep.stores.mongo.documents import (
    Document,
    from_micros_or_none,
    span_to_micros,
    statistics,
    suspicion,
    to_micros_or_none,
)
from tokenkeep.stores.mongo.schema import ISSUED
from tokenkeep.stores.plain import from_json, from_micros, to_json, to_micros

_TOGETHER: Final = 1000
"""Tokens that are revoked in one transaction."""


class MongoIssued:
    """Implements `IssuedStore`.

    What reads a token and then decides writes the same document, so that two such transactions collide and
    one of them begins anew: snapshot isolation alone would let both go through.
    """

    def __init__(self, database: Database, audit: MongoAudit) -> None:
        self._database = database
        self._audit = audit

    # --- adding and finding

    async def add(self, grants: Sequence[Grant]) -> None:
        await self._database.transact(lambda calls: self._insert_all(calls, grants))

    async def _insert_all(self, calls: Calls, grants: Sequence[Grant]) -> None:
        await calls.insert(ISSUED, [_document(record) for grant in grants for record in grant.records])
        await self._audit.append_each(calls, [(_account(grant.records[0]), grant.entry) for grant in grants])

    async def add_within(
        self,
        grant: Grant,
        choose: Callable[[Sequence[IssuedRecord]], Collection[bytes] | None],
        ended: Callable[[str], Entry],
    ) -> list[bytes] | None:
        first = grant.records[0]

        async def put(calls: Calls) -> list[bytes] | None:
            rows = await calls.rows(ISSUED, _alive(first.namespace, first.user_id, grant.entry.at))
            with suspicion(self._database.name):
                chosen = choose([_record(row, kin=True) for row in rows])
            if chosen is None:
                return None
            await self._insert_all(calls, [grant])  # whoever appends to the user's chain collides with this
            ending = [row for row in rows if row["_id"] in chosen]
            families = [row["family"] for row in ending if row.get("family") is not None]
            theirs = {"$or": [{"_id": {"$in": [row["_id"] for row in ending]}}, {"family": {"$in": families}}]}
            return await self._revoke(calls, first.namespace, await self._unrevoked(calls, theirs), ended)

        return await self._database.transact(put)

    async def find(self, token_id: bytes, *, coarse: bool = False) -> IssuedRecord | None:  # noqa: ARG002  # never is it behind
        return await self._find({"_id": token_id, "revoked_at": None, "access_lifetime": None}, kin=False)

    async def find_refresh(self, token_id: bytes) -> IssuedRecord | None:
        return await self._find({"_id": token_id, "revoked_at": None, "access_lifetime": {"$ne": None}}, kin=True)

    async def _find(self, where: Document, *, kin: bool) -> IssuedRecord | None:
        with self._database.asking() as calls:
            found = await calls.first(ISSUED, where)
        with suspicion(self._database.name):
            return None if found is None else _record(found, kin=kin)

    # --- ending

    async def end_issued(self, namespace: str, token_id: bytes, entry: Callable[[str], Entry]) -> list[bytes]:
        async def end(calls: Calls) -> list[bytes]:
            found = await calls.first(ISSUED, {"_id": token_id, "namespace": namespace, "revoked_at": None})
            if found is None:
                return []
            family = found.get("family")
            rows = [found] if family is None else await self._unrevoked(calls, {"family": family})
            return await self._revoke(calls, namespace, rows, entry)

        return await self._database.transact(end)

    async def _unrevoked(self, calls: Calls, where: Document, limit: int = 0) -> list[dict[str, Any]]:
        fields = ["user_id", "family"]
        return await calls.rows(ISSUED, {**where, "revoked_at": None}, limit=limit, fields=fields)

    async def _revoke(
        self, calls: Calls, namespace: str, rows: Sequence[Document], entry: Callable[[str], Entry]
    ) -> list[bytes]:
        ids = [bytes(row["_id"]) for row in rows]
        entries = [(Account(namespace, "", row["user_id"]), entry(row["_id"].hex())) for row in rows]
        changes = [
            UpdateOne({"_id": row_id}, {"$set": {"revoked_at": to_micros(noted.at)}})
            for row_id, (_, noted) in zip(ids, entries, strict=True)
        ]
        await calls.bulk(ISSUED, changes)
        await self._audit.append_each(calls, entries)
        return ids

    async def end_all_issued(
        self, namespace: str, user_id: str, entry: Callable[[str], Entry], *, keep: bytes | None
    ) -> list[bytes]:
        users = {"namespace": namespace, "user_id": user_id}

        async def end_some(calls: Calls) -> list[bytes]:
            kept = None if keep is None else await calls.first(ISSUED, {"_id": keep, **users})
            where: dict[str, Any] = dict(users)
            if keep is not None:
                where["_id"] = {"$ne": keep}
            if kept is not None and kept.get("family") is not None:
                where["family"] = {"$ne": kept["family"]}
            return await self._revoke(calls, namespace, await self._unrevoked(calls, where, _TOGETHER), entry)

        ended: list[bytes] = []
        while True:
            some = await self._database.transact(end_some)
            ended += some
            if len(some) < _TOGETHER:
                return ended

    # --- refreshing

    async def spend(
        self, spent: IssuedRecord, grant: Grant, reused: Callable[[str], Entry], *, grace: timedelta, successors: int
    ) -> Spending:
        moment = grant.entry.at

        async def use(calls: Calls) -> Spending:
            row = await calls.first(ISSUED, {"_id": spent.id, "revoked_at": None})
            if row is None:
                return Spending.REFUSED
            first = from_micros_or_none(row.get("spent_at"))
            if first is not None:
                if moment - first >= grace or await self._is_later_spent(calls, spent):
                    family = await self._unrevoked(calls, {"family": spent.family})
                    await self._revoke(calls, spent.namespace, family, reused)
                    return Spending.REUSED
                if row["successors"] >= successors:
                    return Spending.REFUSED
            counted = {"spent_at": to_micros(first or moment), "successors": row.get("successors", 0) + 1}
            await calls.update(ISSUED, {"_id": spent.id}, {"$set": counted})
            await self._insert_all(calls, [grant])
            return Spending.DONE

        return await self._database.transact(use)

    async def _is_later_spent(self, calls: Calls, spent: IssuedRecord) -> bool:
        later = {"family": spent.family, "generation": {"$gt": spent.generation}, "spent_at": {"$gt": 0}}
        return await calls.first(ISSUED, later) is not None

    # --- the rest

    async def issued(self, namespace: str, user_id: str, *, now: datetime, limit: int) -> list[IssuedRecord]:
        alive = _alive(namespace, user_id, now)
        with self._database.asking() as calls:
            rows = await calls.rows(ISSUED, alive, sort=[("created_at", -1), ("_id", 1)], limit=limit)
        with suspicion(self._database.name):
            return [_record(row, kin=True) for row in rows]

    async def count_issued_uses(self, uses: Sequence[tuple[bytes, int, datetime]]) -> None:
        changes = [
            UpdateOne(
                {"_id": token_id, "revoked_at": None},
                {"$inc": {"usage_count": count}, "$max": {"last_used_at": to_micros(moment)}},
            )
            for token_id, count, moment in sorted(uses)
        ]
        if changes:
            await self._database.transact(lambda calls: calls.bulk(ISSUED, changes))

    async def redigest(self, token_id: bytes, old: bytes, new: bytes, key_id: str | None) -> bool:
        this = {"_id": token_id, "digest": old, "revoked_at": None}
        with self._database.asking() as calls:
            return await calls.update(ISSUED, this, {"$set": {"digest": new, "key_id": key_id}})

    async def erase_issued(self, namespace: str, user_id: str, *, limit: int) -> int:
        with self._database.asking() as calls:
            theirs = {"namespace": namespace, "user_id": user_id}
            rows = await calls.rows(ISSUED, theirs, limit=limit, fields=["_id"])
            return await calls.delete(ISSUED, {"_id": {"$in": [row["_id"] for row in rows]}})

    async def purge_issued(
        self, namespace: str, *, before: datetime, after: bytes, limit: int
    ) -> tuple[int, bytes | None]:
        dead = {"namespace": namespace, "expires_at": {"$lt": to_micros(before)}}
        end = first_id(day_of(before) + 1)
        with self._database.asking() as calls:
            edge = await calls.rows(
                ISSUED, {"_id": {"$gt": after, "$lt": end}}, sort=[("_id", 1)], skip=limit - 1, limit=1, fields=["_id"]
            )
            upto = bytes(edge[0]["_id"]) if edge else end
            gone = await calls.delete(ISSUED, {"_id": {"$gt": after, "$lte": upto}, **dead})
            return gone, upto if edge else None

    async def issued_statistics(self, namespace: str, user_id: str, *, now: datetime) -> Statistics:
        mine = {"namespace": namespace, "user_id": user_id, "access_lifetime": None}
        alive = [
            {"$eq": [{"$ifNull": ["$revoked_at", None]}, None]},
            {"$gt": ["$expires_at", to_micros(now)]},
        ]
        figures = {
            "_id": None,
            "total": {"$sum": 1},
            "active": {"$sum": {"$cond": [{"$and": alive}, 1, 0]}},
            "used": {"$sum": "$usage_count"},
            "made": {"$max": "$created_at"},
            "last": {"$max": "$last_used_at"},
        }
        with self._database.asking() as calls:
            rows = await calls.aggregate(ISSUED, [{"$match": mine}, {"$group": figures}])
        with suspicion(self._database.name):
            return statistics(rows[0] if rows else None)


def _alive(namespace: str, user_id: str, now: datetime) -> Document:
    return {
        "namespace": namespace,
        "user_id": user_id,
        "revoked_at": None,
        "spent_at": None,
        "expires_at": {"$gt": to_micros(now)},
    }


def _account(record: IssuedRecord) -> Account:
    return Account(record.namespace, "", record.user_id)


def _record(row: Document, *, kin: bool) -> IssuedRecord:
    lifetime = row.get("access_lifetime") if kin else None
    return IssuedRecord(
        id=bytes(row["_id"]),
        digest=bytes(row["digest"]),
        key_id=row["key_id"],
        namespace=row["namespace"],
        user_id=row["user_id"],
        name=row["name"],
        scopes=tuple(row["scopes"].split()),
        created_at=from_micros(row["created_at"]),
        expires_at=from_micros(row["expires_at"]),
        client=row["client"],
        metadata=from_json(row["metadata"]),
        last_used_at=from_micros_or_none(row.get("last_used_at")),
        family=row.get("family") if kin else None,
        generation=row.get("generation") if kin else None,
        access_lifetime=None if lifetime is None else timedelta(microseconds=lifetime),
    )


def _document(record: IssuedRecord) -> dict[str, Any]:
    document = {
        "_id": record.id,
        "digest": record.digest,
        "key_id": record.key_id,
        "namespace": record.namespace,
        "user_id": record.user_id,
        "name": record.name,
        "scopes": " ".join(record.scopes),
        "created_at": to_micros(record.created_at),
        "expires_at": to_micros(record.expires_at),
        "client": record.client,
        "metadata": to_json(record.metadata),
        "last_used_at": to_micros_or_none(record.last_used_at),
        "usage_count": 0,
    }
    if record.family is not None:  # what hangs together by refreshing
        document |= {"family": record.family, "generation": record.generation}
    if record.access_lifetime is not None:
        document["access_lifetime"] = span_to_micros(record.access_lifetime)
    return document
