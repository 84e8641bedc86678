"""Single-flight in MongoDB: one document an account, changed only by conditional updates.

They are pipelines, so that they can reckon with the server's own clock, `$$NOW`. In a sharded cluster that
is the clock of the `mongos` which was asked.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

from pymongo.errors import DuplicateKeyError

from tokenkeep.model import Account
from tokenkeep.ports import Clock, Entry, Failure, Lease, LeaseState, Right
from tokenkeep.stores.mongo.audit import MongoAudit
from tokenkeep.stores.mongo.database import Calls, Database
from tokenkeep.stores.mongo.documents import Document, key_of, literal, span_to_micros, suspicion
from tokenkeep.stores.mongo.schema import LEASE, STEP
from tokenkeep.stores.plain import to_micros

_MICROSECONDS: Final = 1_000_000

_SERVER_CLOCK: Final = {"$multiply": [{"$toLong": "$$NOW"}, 1000]}
"""Microseconds since 1970-01-01 UTC by the clock of the server."""

_STEPS_KEPT: Final = timedelta(days=7)
"""How long a claimed time step is remembered after its last use; a time step is seconds or minutes."""

FORGOTTEN: Final = {"$add": ["$$NOW", _STEPS_KEPT // timedelta(milliseconds=1)]}
"""When a step that is claimed now may be forgotten, as an expression of a pipeline."""

_FREE: Final = {"owner": None, "until": 0}
_DONE: Final = {"begun": None, "fingerprint": None}
_WELL: Final = {"failures": 0, "failed_fence": None, "failure": None, "reason": "", "retry_at": None}


class MongoLeases:
    """Implements `LeaseStore`.

    Args:
        clock: times the leases instead of the server's own clock; `None` where hosts may disagree.
    """

    def __init__(self, database: Database, audit: MongoAudit, *, clock: Clock | None) -> None:
        self._database = database
        self._audit = audit
        self._clock = clock

    def _now(self) -> Any:
        """The present in microseconds, as an expression of a pipeline."""
        return _SERVER_CLOCK if self._clock is None else literal(to_micros(self._clock.now()))

    async def lease_state(self, account: Account) -> LeaseState:
        stages = [{"$match": {"_id": _key(account)}}, {"$addFields": {"now": self._now()}}]
        with self._database.asking() as calls:
            rows = await calls.aggregate(LEASE, stages)
        if not rows:
            return LeaseState()
        with suspicion(self._database.name):
            return _state(rows[0])

    async def take_lease(self, account: Account, owner: str, ttl: timedelta) -> Lease | None:
        now = self._now()
        nobodys = {"$eq": [{"$ifNull": ["$owner", None]}, None]}
        change: list[Document] = [
            {"$set": {"free": {"$or": [nobodys, {"$lte": ["$until", now]}]}}},
            {
                "$set": {
                    "owner": {"$cond": ["$free", literal(owner), "$owner"]},
                    "fence": {"$cond": ["$free", {"$add": [{"$ifNull": ["$fence", 0]}, 1]}, "$fence"]},
                    "until": {"$cond": ["$free", {"$add": [now, span_to_micros(ttl)]}, "$until"]},
                }
            },
            {"$unset": "free"},
        ]
        with self._database.asking() as calls:
            with suppress(DuplicateKeyError):  # somebody else made the document in the same moment
                await calls.update(LEASE, {"_id": _key(account)}, change, upsert=True)
            taken = await calls.first(LEASE, {"_id": _key(account), "owner": owner})
        if taken is None:
            return None
        with suspicion(self._database.name):
            return Lease(
                account=account,
                owner=owner,
                fence=taken["fence"],
                unfinished=taken.get("begun"),
                fingerprint=taken.get("fingerprint"),
                failures=taken.get("failures", 0),
            )

    async def keep_lease(self, lease: Lease, ttl: timedelta) -> bool:
        now = self._now()
        still_mine = {**_mine(lease), "$expr": {"$gt": ["$until", now]}}
        with self._database.asking() as calls:
            return await calls.update(LEASE, still_mine, [{"$set": {"until": {"$add": [now, span_to_micros(ttl)]}}}])

    async def note_intent(self, lease: Lease, fingerprint: bytes | None) -> bool:
        begun = {"$set": {"begun": lease.fence, "fingerprint": fingerprint}}
        with self._database.asking() as calls:
            return await calls.update(LEASE, _mine(lease), begun)

    async def drop_lease(self, lease: Lease, failure: Failure | None, entry: Entry | None) -> bool:
        if failure is None:
            with self._database.asking() as calls:
                return await calls.update(LEASE, _mine(lease), {"$set": _FREE})
        failed = [{"$set": {**_FREE, **_DONE, **self._failed(lease, failure)}}]

        async def drop(calls: Calls) -> bool:
            dropped = await calls.update(LEASE, _mine(lease), failed)
            if dropped and entry is not None:
                await self._audit.append(calls, lease.account, [entry])
            return dropped

        return await self._database.transact(drop)

    def _failed(self, lease: Lease, failure: Failure) -> dict[str, Any]:
        retry_in = failure.retry_in
        return {
            "failures": {"$add": [{"$ifNull": ["$failures", 0]}, 1]},
            "failed_fence": lease.fence,
            "failure": literal(failure.failure),
            "reason": literal(failure.reason),
            "retry_at": None if retry_in is None else {"$add": [self._now(), int(retry_in * _MICROSECONDS)]},
        }

    async def finish(self, calls: Calls, right: Right) -> bool:
        """Give the lease back after a success, in the transaction that writes the tokens; `False` when it is lost."""
        if isinstance(right, Lease):
            return await calls.update(LEASE, _mine(right), {"$set": {**_FREE, **_DONE, **_WELL}})
        unheld = {"_id": _key(right.account), "owner": None, "begun": None}
        return await calls.update(LEASE, unheld, {"$set": _WELL, "$inc": {"fence": 1}})

    async def break_lease(self, calls: Calls, account: Account) -> None:
        """Take the right to write from whoever holds the lease, in the transaction that revokes."""
        await calls.update(LEASE, {"_id": _key(account)}, {"$set": _FREE, "$inc": {"fence": 1}})

    async def forget_lease(self, calls: Calls, account: Account) -> None:
        """Delete the document that nobody holds, in the transaction that erases the account."""
        await calls.delete(LEASE, {"_id": _key(account), "owner": None})

    async def claim_step(self, key: bytes, *, after: int, upto: int) -> bool:
        with self._database.asking() as calls:
            try:
                await calls.update(
                    STEP,
                    {"_id": key, "step": {"$lte": after}},
                    [{"$set": {"step": literal(upto), "purge_at": FORGOTTEN}}],
                    upsert=True,
                )
            except DuplicateKeyError:  # it is there with a later step
                return False
        return True


def _key(account: Account) -> str:
    return key_of(*account)


def _mine(lease: Lease) -> dict[str, Any]:
    return {"_id": _key(lease.account), "owner": lease.owner, "fence": lease.fence}


def _state(row: Document) -> LeaseState:
    failure, retry_at, now = row.get("failure"), row.get("retry_at"), row["now"]
    never = failure is not None and retry_at is None
    return LeaseState(
        fence=row["fence"],
        held_for=0.0 if row["owner"] is None else max(0.0, (row["until"] - now) / _MICROSECONDS),
        failed_fence=row.get("failed_fence"),
        failure=failure,
        reason=row.get("reason", ""),
        retry_in=None if never else max(0.0, ((retry_at or 0) - now) / _MICROSECONDS),
    )
