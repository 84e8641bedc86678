"""The audit trail in MongoDB."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from tokenkeep.model import Account, Action, AuditEvent
from tokenkeep.ports import Entry
from tokenkeep.stores.mongo.database import Calls, Database
from tokenkeep.stores.mongo.documents import Document, from_json, from_micros, suspicion, to_json, to_micros
from tokenkeep.stores.mongo.schema import AUDIT


class MongoAudit:
    """Implements `AuditStore`; `append` writes within the transaction of a change."""

    def __init__(self, database: Database, *, actor: str) -> None:
        self._database = database
        self._actor = actor

    async def append(self, calls: Calls, account: Account, entries: Sequence[Entry]) -> None:
        """Write events in the transaction of the change that they tell of."""
        await self.append_each(calls, [(account, entry) for entry in entries])

    async def append_each(self, calls: Calls, entries: Sequence[tuple[Account, Entry]]) -> None:
        """Write events of several accounts in the transaction of the change that they tell of."""
        await calls.insert(AUDIT, [self._document(account, entry) for account, entry in entries])

    def _document(self, account: Account, entry: Entry) -> dict[str, Any]:
        return {
            "namespace": account.namespace,
            "provider": account.provider or None,
            "user_id": account.user_id,
            "action": entry.action.value,
            "token_id": entry.token_id,
            "at": to_micros(entry.at),
            "actor": self._actor,
            "detail": to_json(entry.detail),
        }

    async def note(self, account: Account, entry: Entry) -> None:
        with self._database.asking() as calls:
            await self.append(calls, account, [entry])

    async def audit_trail(self, namespace: str, user_id: str, *, limit: int) -> list[AuditEvent]:
        with self._database.asking() as calls:
            rows = await calls.rows(
                AUDIT, {"namespace": namespace, "user_id": user_id}, sort=[("at", -1), ("_id", -1)], limit=limit
            )
        with suspicion(self._database.name):
            return [_event(row) for row in rows]

    async def purge_audit(self, namespace: str, before: datetime, *, limit: int) -> int:
        with self._database.asking() as calls:
            old = {"namespace": namespace, "at": {"$lt": to_micros(before)}}
            rows = await calls.rows(AUDIT, old, sort=[("at", 1)], limit=limit, fields=["_id"])
            return await calls.delete(AUDIT, {"_id": {"$in": [row["_id"] for row in rows]}, **old})


def _event(row: Document) -> AuditEvent:
    return AuditEvent(
        action=Action(row["action"]),
        user_id=row["user_id"],
        token_id=row["token_id"],
        at=from_micros(row["at"]),
        actor=row["actor"],
        detail=from_json(row["detail"]),
    )
