"""The audit trail in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, delete, insert, select

from tokenkeep.model import Account, Action, AuditEvent
from tokenkeep.ports import Entry
from tokenkeep.stores.sql.database import Database, Transaction
from tokenkeep.stores.sql.repeating import Doubt, reports, writes
from tokenkeep.stores.sql.schema import Tables


class SqlAudit:
    """Implements `AuditStore`; `append` writes within the transaction of a change."""

    def __init__(self, database: Database, tables: Tables, *, actor: str) -> None:
        self._database = database
        self._actor = actor
        table = tables.audit
        self._insert = insert(table)
        self._trail = (
            select(table)
            .where(table.c.namespace == bindparam("namespace"), table.c.user_id == bindparam("user_id"))
            .order_by(table.c.id.desc())
            .limit(bindparam("count"))
        )
        old = (table.c.namespace == bindparam("namespace"), table.c.at < bindparam("before"))
        self._oldest = select(table.c.id).where(*old).order_by(table.c.id).limit(bindparam("count"))
        # By a range, for in a DELETE that selects its own rows MariaDB reads the whole table.
        self._purge = delete(table).where(*old, table.c.id >= bindparam("first"), table.c.id <= bindparam("last"))

    async def append(self, transaction: Transaction, account: Account, entries: Sequence[Entry]) -> None:
        """Write events in the transaction of the change that they tell of."""
        await self.append_each(transaction, [(account, entry) for entry in entries])

    async def append_each(self, transaction: Transaction, entries: Sequence[tuple[Account, Entry]]) -> None:
        """Write events of several accounts in the transaction of the change that they tell of."""
        if entries:
            await transaction.run(self._insert, [self._row(account, entry) for account, entry in entries])

    def _row(self, account: Account, entry: Entry) -> dict[str, Any]:
        return {
            "namespace": account.namespace,
            "provider": account.provider or None,
            "user_id": account.user_id,
            "action": entry.action.value,
            "token_id": entry.token_id,
            "at": entry.at,
            "actor": self._actor,
            "detail": dict(entry.detail),
        }

    @writes()
    async def note(self, transaction: Transaction, account: Account, entry: Entry) -> None:
        await self.append(transaction, account, [entry])

    @reports
    async def audit_trail(
        self, transaction: Transaction, namespace: str, user_id: str, *, limit: int
    ) -> list[AuditEvent]:
        rows = await transaction.rows(self._trail, {"namespace": namespace, "user_id": user_id, "count": limit})
        return [
            AuditEvent(
                action=Action(row.action),
                user_id=row.user_id,
                token_id=row.token_id,
                at=row.at,
                actor=row.actor,
                detail=row.detail,
            )
            for row in rows
        ]

    @writes(Doubt.DONE)
    async def purge_audit(self, transaction: Transaction, namespace: str, before: datetime, *, limit: int) -> int:
        old = {"namespace": namespace, "before": before}
        rows = await transaction.rows(self._oldest, {**old, "count": limit})
        if not rows:
            return 0
        return await transaction.count(self._purge, {**old, "first": rows[0].id, "last": rows[-1].id})
