"""What providers have still to be told, in MongoDB: history that keeps its secrets."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from tokenkeep.ports import Entry, Wish
from tokenkeep.stores.mongo.audit import MongoAudit
from tokenkeep.stores.mongo.database import Calls, Database
from tokenkeep.stores.mongo.documents import suspicion
from tokenkeep.stores.mongo.records import ended_record
from tokenkeep.stores.mongo.schema import HISTORY, WISHED
from tokenkeep.stores.plain import from_micros, to_micros


class MongoWishes:
    """Implements `WishStore`."""

    def __init__(self, database: Database, audit: MongoAudit) -> None:
        self._database = database
        self._audit = audit

    async def claim_wish(
        self,
        namespace: str,
        *,
        providers: Collection[str],
        user_id: str | None,
        now: datetime,
        over: datetime,
        until: datetime,
    ) -> Wish | None:
        mortal = {"refresh_sealed": None, "expires_at": {"$lte": to_micros(now)}}
        ours = [{"provider": {"$in": list(providers)}}, mortal, {"ended_at": {"$lt": to_micros(over)}}]
        due: dict[str, Any] = {"revoke_at": {"$lte": to_micros(now)}, "namespace": namespace, "$or": ours}
        if user_id is not None:
            due["user_id"] = user_id
        then = {"$set": {"revoke_at": to_micros(until)}}
        with self._database.asking() as calls:
            while rows := await calls.rows(HISTORY, due, sort=[("revoke_at", 1)], limit=1):
                this = {"_id": rows[0]["_id"], "revoke_at": rows[0]["revoke_at"]}
                if await calls.update(HISTORY, this, then):
                    break
        with suspicion(self._database.name):
            if not rows:
                return None
            return Wish(record=ended_record(rows[0]), ended_at=from_micros(rows[0]["ended_at"]), claimed_until=until)

    async def settle_wish(self, wish: Wish, entry: Entry, *, again_at: datetime | None) -> bool:
        this = {"_id": wish.record.id, "revoke_at": to_micros(wish.claimed_until)}
        change: dict[str, Any] = {"$unset": {"access_sealed": "", "refresh_sealed": "", "revoke_at": ""}}
        if again_at is not None:
            change = {"$set": {"revoke_at": to_micros(again_at)}}

        async def settle(calls: Calls) -> bool:
            settled = await calls.update(HISTORY, this, change)
            if settled:
                await self._audit.append(calls, wish.record.account, [entry])
            return settled

        return await self._database.transact(settle)

    async def count_wishes(self) -> int:
        with self._database.asking() as calls:
            counted = await calls.aggregate(HISTORY, [{"$match": {"revoke_at": WISHED}}, {"$count": "wishes"}])
        return int(counted[0]["wishes"]) if counted else 0
