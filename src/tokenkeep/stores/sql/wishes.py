"""What providers have still to be told, in SQL: rows of ended tokens that keep their secrets."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import and_, bindparam, func, or_, select, update

from tokenkeep.ports import Entry, TokenRecord, Wish
from tokenkeep.stores.sql.audit import SqlAudit
from tokenkeep.stores.sql.database import Database, Transaction
from tokenkeep.stores.sql.repeating import Doubt, reads, writes
from tokenkeep.stores.sql.schema import Tables
from tokenkeep.stores.sql.tokens import columns_of, record_of


class SqlWishes:
    """Implements `WishStore`."""

    def __init__(self, database: Database, tables: Tables, audit: SqlAudit) -> None:
        self._database = database
        self._audit = audit
        table, c = tables.token, tables.token.c
        mortal = and_(c.refresh_sealed.is_(None), c.expires_at <= bindparam("now"))
        ours = or_(c.provider.in_(bindparam("providers", expanding=True)), mortal, c.ended_at < bindparam("over"))
        due = (
            select(*columns_of(tables), c.ended_at, c.revoke_at)
            .where(c.revoke_at <= bindparam("now"), c.namespace == bindparam("ns"), ours)
            .order_by(c.revoke_at)
            .limit(1)
        )
        self._due = due
        self._due_of = due.where(c.user_id == bindparam("us"))
        this = update(table).where(c.id == bindparam("token_id"), c.revoke_at == bindparam("seen"))
        self._move = this.values(revoke_at=bindparam("then"))
        self._erase = this.values(access_sealed=None, refresh_sealed=None, revoke_at=None)
        self._count = select(func.count()).select_from(table).where(c.revoke_at.is_not(None))

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
        due = {"ns": namespace, "providers": list(providers), "now": now, "over": over}
        while (found := await self._first_due(due if user_id is None else {**due, "us": user_id})) is not None:
            record, ended_at, revoke_at = found
            if await self._claim(record.id, revoke_at, until):
                return Wish(record=record, ended_at=ended_at, claimed_until=until)
        return None

    @reads
    async def _first_due(
        self, transaction: Transaction, due: dict[str, Any]
    ) -> tuple[TokenRecord, datetime, datetime] | None:
        row = await transaction.first(self._due_of if "us" in due else self._due, due)
        return None if row is None else (record_of(row[:-2]), row.ended_at, row.revoke_at)

    @writes(Doubt.REPEAT)  # where the answer was lost it counts as another's, and is due again when that claim ends
    async def _claim(self, transaction: Transaction, token_id: str, seen: datetime, until: datetime) -> bool:
        return bool(await transaction.count(self._move, {"token_id": token_id, "seen": seen, "then": until}))

    @writes(Doubt.DONE)
    async def settle_wish(
        self, transaction: Transaction, wish: Wish, entry: Entry, *, again_at: datetime | None
    ) -> bool:
        this: dict[str, Any] = {"token_id": wish.record.id, "seen": wish.claimed_until}
        settled = bool(
            await transaction.count(self._erase, this)
            if again_at is None
            else await transaction.count(self._move, {**this, "then": again_at})
        )
        if settled:
            await self._audit.append(transaction, wish.record.account, [entry])
        return settled

    @reads
    async def count_wishes(self, transaction: Transaction) -> int:
        row = await transaction.first(self._count)
        return int(row[0])
