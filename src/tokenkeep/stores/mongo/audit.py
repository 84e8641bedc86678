"""The audit trail in MongoDB, and its chains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import batched
from typing import Any, Final

from bson import ObjectId
from pymongo import UpdateOne
from pymongo.errors import BulkWriteError, DuplicateKeyError

from tokenkeep.model import Account, Action, AuditEvent
from tokenkeep.ports import START, UNPROVED, Chain, Entry, Link, Mark, Proof, TrailKeys
from tokenkeep.stores.mongo.database import Calls, Contended, Database
from tokenkeep.stores.mongo.documents import Document, key_of, suspicion
from tokenkeep.stores.mongo.schema import AUDIT, HEAD
from tokenkeep.stores.plain import from_json, from_micros, to_json, to_micros
from tokenkeep.trail import User, linked, prove_purge, purged_up_to

_ASKED_FOR: Final = 500
"""Users whose heads one query reads."""


class MongoAudit:
    """Implements `ChainedAudit`; `append` writes within the transaction of a change.

    Whoever appends writes the head of the chain, so that two transactions which follow the same event collide, and one
    of them begins anew.
    """

    def __init__(self, database: Database, *, actor: str) -> None:
        self._database = database
        self._actor = actor
        self._keys: TrailKeys | None = None

    def use_keys(self, keys: TrailKeys | None) -> None:
        self._keys = keys

    # --- appending

    async def append(self, calls: Calls, account: Account, entries: Sequence[Entry]) -> None:
        """Write events in the transaction of the change that they tell of."""
        await self.append_each(calls, [(account, entry) for entry in entries])

    async def append_each(self, calls: Calls, entries: Sequence[tuple[Account, Entry]]) -> None:
        """Write events of several accounts in the transaction of the change that they tell of."""
        if not entries:
            return
        held = await self._heads(calls, {(account.namespace, account.user_id) for account, _ in entries})
        heads = {user: chain.head for user, chain in held.items() if chain.head is not None}
        links, last = linked(entries, heads, actor=self._actor, keys=self._keys)
        await self._begin(calls, [(user, link) for user, link in last.items() if user not in held])
        moved = [
            UpdateOne({"_id": key_of(*user)}, {"$set": _marked(link)}) for user, link in last.items() if user in held
        ]
        await calls.bulk(HEAD, moved)
        await calls.insert(AUDIT, [_document(link) for link in links])

    async def _heads(self, calls: Calls, users: Iterable[User]) -> dict[User, Chain]:
        found: dict[User, Chain] = {}
        for some in batched(sorted(users), _ASKED_FOR):
            rows = await calls.rows(HEAD, {"_id": {"$in": [key_of(*user) for user in some]}})
            found |= {(row["namespace"], row["user_id"]): _chain(row) for row in rows}
        return found

    async def _begin(self, calls: Calls, first: Sequence[tuple[User, Link]]) -> None:
        marks = {**_placed(START, UNPROVED, "vouched"), **_placed(START, UNPROVED, "purged")}
        heads = [{"_id": key_of(*user), **_user(*user), **_marked(link), **marks} for user, link in first]
        try:
            await calls.insert(HEAD, heads)
        except (BulkWriteError, DuplicateKeyError) as error:
            if error.has_error_label("TransientTransactionError"):
                raise
            raise Contended from error

    async def note(self, account: Account, entry: Entry) -> None:
        await self.note_each([(account, entry)])

    async def note_each(self, noted: Sequence[tuple[Account, Entry]]) -> None:
        await self._database.transact(lambda calls: self.append_each(calls, noted))

    # --- reading

    async def audit_trail(self, namespace: str, user_id: str, *, limit: int) -> list[AuditEvent]:
        with self._database.asking() as calls:
            rows = await calls.rows(AUDIT, _user(namespace, user_id), sort=[("at", -1), ("_id", -1)], limit=limit)
        with suspicion(self._database.name):
            return [_event(row) for row in rows]

    async def count_audit(self, namespace: str) -> int:
        stages: list[Document] = [{"$match": {"namespace": namespace}}, {"$count": "events"}]
        with self._database.asking() as calls:
            rows = await calls.aggregate(AUDIT, stages)
        return int(rows[0]["events"]) if rows else 0

    async def audited_users(self, namespace: str, *, after: str, limit: int) -> list[str]:
        past = {"namespace": namespace, "user_id": {"$gt": after}}
        with self._database.asking() as calls:
            heads = await calls.rows(HEAD, past, sort=[("user_id", 1)], limit=limit, fields=["user_id"])
            names = {row["user_id"] for row in heads}
            if len(heads) == limit:
                past["user_id"] = {"$gt": after, "$lte": heads[-1]["user_id"]}
            group: Document = {"$group": {"_id": "$user_id"}}
            rows = await calls.aggregate(AUDIT, [{"$match": past}, group])
        return sorted(names | {row["_id"] for row in rows})

    async def chain(self, namespace: str, user_id: str) -> Chain:
        with self._database.asking() as calls:
            found = await self._heads(calls, [(namespace, user_id)])
        return found.get((namespace, user_id), Chain(head=None))

    async def links(self, namespace: str, user_id: str, *, after: int, limit: int) -> list[Link]:
        user = _user(namespace, user_id)
        with self._database.asking() as calls:
            rows = await calls.rows(
                AUDIT, {**user, "sequence": {"$gt": after}}, sort=[("sequence", 1), ("_id", 1)], limit=limit
            )
            outside = [] if after else await calls.rows(AUDIT, {**user, "sequence": None}, sort=[("_id", 1)])
        try:
            return [_link(row, first=rows[0] if rows else None) for row in (*outside, *rows)]
        except (AttributeError, KeyError, OverflowError, TypeError) as error:
            raise ValueError(str(error)) from None

    # --- upkeep

    async def purge_audit(self, namespace: str, before: datetime, *, limit: int) -> int:
        old = {"namespace": namespace, "at": {"$lt": to_micros(before)}}

        async def clear(calls: Calls) -> int:
            skipped = 0
            while rows := await calls.rows(AUDIT, old, sort=[("at", 1)], limit=limit, skip=skipped, fields=["user_id"]):
                going = await self._going(calls, old, sorted({row["user_id"] for row in rows}), limit)
                if going:
                    return await self._purge(calls, namespace, going)
                skipped += len(rows)  # all of them wait behind a younger event
            return 0

        return await self._database.transact(clear)

    async def _going(
        self, calls: Calls, old: Mapping[str, Any], users: Sequence[str], limit: int
    ) -> list[dict[str, Any]]:
        """Return the next events of these users that may go: those before the first of their chain that is younger."""
        theirs = {**old, "user_id": {"$in": list(users)}}
        young = {**theirs, "at": {"$gte": old["at"]["$lt"]}, "sequence": {"$gt": 0}}
        first: Document = {"$group": {"_id": "$user_id", "sequence": {"$min": "$sequence"}}}
        blocked = {row["_id"]: row["sequence"] for row in await calls.aggregate(AUDIT, [{"$match": young}, first])}
        order = [("user_id", 1), ("sequence", 1)]
        rows = await calls.rows(AUDIT, theirs, sort=order, limit=limit, fields=["user_id", "sequence", "digest"])
        return [row for row in rows if (row.get("sequence") or 0) < blocked.get(row["user_id"], float("inf"))]

    async def _purge(self, calls: Calls, namespace: str, going: Sequence[Document]) -> int:
        chained = [row for row in going if row.get("sequence") is not None]
        held = await self._heads(calls, {(namespace, row["user_id"]) for row in chained})
        marks = []
        for user, chain in held.items():
            mark = purged_up_to(chain, [_mark(row) for row in chained if row["user_id"] == user[1]])
            proof = chain.purged_proof if mark == chain.purged else prove_purge(mark, self._keys)
            marks.append(UpdateOne({"_id": key_of(*user)}, {"$set": _placed(mark, proof, "purged")}))
        await calls.bulk(HEAD, marks)
        return await calls.delete(AUDIT, {"_id": {"$in": [row["_id"] for row in going]}})

    async def unvouched(self, key_id: str, *, after: tuple[str, str], limit: int) -> list[tuple[str, str, Chain]]:
        namespace, user_id = after
        past = [{"namespace": {"$gt": namespace}}, {"namespace": namespace, "user_id": {"$gt": user_id}}]
        where = {"$or": past, "vouched_key_id": {"$ne": key_id}}
        with self._database.asking() as calls:
            rows = await calls.rows(HEAD, where, sort=[("namespace", 1), ("user_id", 1)], limit=limit)
        return [(row["namespace"], row["user_id"], _chain(row)) for row in rows]

    async def vouch(self, namespace: str, user_id: str, chain: Chain) -> bool:
        this = {"_id": key_of(namespace, user_id), "purged": chain.purged.sequence}
        marks = _placed(chain.vouched, chain.vouched_proof, "vouched") | _placed(
            chain.purged, chain.purged_proof, "purged"
        )
        with self._database.asking() as calls:
            return await calls.update(HEAD, this, {"$set": marks})


def age(row_id: object) -> tuple[bool, Any]:
    """Return what the `_id`s of events are told apart by: a number came with a copy, before any ObjectId."""
    return isinstance(row_id, ObjectId), row_id


def _document(link: Link) -> dict[str, Any]:
    account, entry = link.account, link.entry
    return {
        **_user(account.namespace, account.user_id),
        "provider": account.provider or None,
        "action": entry.action.value,
        "token_id": entry.token_id,
        "at": to_micros(entry.at),
        "actor": link.actor,
        "detail": to_json(entry.detail),
        **_marked(link),
        "proof": link.proof.code,
        "key_id": link.proof.key_id,
    }


def _user(namespace: str, user_id: str) -> dict[str, Any]:
    return {"namespace": namespace, "user_id": user_id}


def _marked(link: Link) -> dict[str, Any]:
    sequence, digest = link.mark or START
    return {"sequence": sequence, "digest": digest}


def _placed(mark: Mark, proof: Proof, name: str) -> dict[str, Any]:
    placed = {"": mark.sequence, "_digest": mark.digest, "_proof": proof.code, "_key_id": proof.key_id}
    return {f"{name}{part}": value for part, value in placed.items()}


def _event(row: Document) -> AuditEvent:
    return AuditEvent(
        action=Action(row["action"]),
        user_id=row["user_id"],
        token_id=row["token_id"],
        at=from_micros(row["at"]),
        actor=row["actor"],
        detail=from_json(row["detail"]),
    )


def _link(row: Document, *, first: Document | None) -> Link:
    event = _event(row)
    chained = row.get("sequence") is not None
    return Link(
        account=Account(row["namespace"], row["provider"] or "", row["user_id"]),
        entry=Entry(action=event.action, at=event.at, token_id=event.token_id, detail=event.detail),
        actor=event.actor,
        mark=_mark(row) if chained else None,
        proof=Proof(row.get("proof"), row.get("key_id")),
        place=row["sequence"] if chained else 0,
        beside=not chained and first is not None and age(row["_id"]) > age(first["_id"]),
    )


def _mark(row: Document, name: str = "sequence", digest: str = "digest") -> Mark:
    return Mark(int(row[name]), bytes(row[digest]))


def _chain(row: Document) -> Chain:
    return Chain(
        head=_mark(row),
        vouched=_mark(row, "vouched", "vouched_digest"),
        vouched_proof=Proof(row["vouched_proof"], row["vouched_key_id"]),
        purged=_mark(row, "purged", "purged_digest"),
        purged_proof=Proof(row["purged_proof"], row["purged_key_id"]),
    )
