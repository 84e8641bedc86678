"""What a SQL database knows of the keys."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, func, insert, or_, select

from tokenkeep.ports import KeyUse
from tokenkeep.stores.sql.database import Database, Transaction
from tokenkeep.stores.sql.errors import Conflict
from tokenkeep.stores.sql.repeating import Doubt, reads, writes
from tokenkeep.stores.sql.schema import Tables


class SqlKeys:
    """Implements `KeyStore`."""

    def __init__(self, database: Database, tables: Tables) -> None:
        self._database = database
        key, token, issued = tables.key, tables.token.c, tables.issued.c
        self._known = select(key.c.key_id, key.c.check_value)
        self._one = select(key.c.key_id).where(key.c.key_id == bindparam("id"))
        self._insert = insert(key)
        self._sealed = (
            select(token.key_id, func.count())
            .where(or_(token.access_sealed.is_not(None), token.refresh_sealed.is_not(None)))
            .group_by(token.key_id)
        )
        self._digests = select(issued.key_id, func.count()).where(issued.key_id.is_not(None)).group_by(issued.key_id)

    @reads
    async def known_keys(self, transaction: Transaction) -> dict[str, bytes]:
        return {row[0]: bytes(row[1]) for row in await transaction.rows(self._known)}

    async def remember_key(self, key_id: str, check_value: bytes, at: datetime) -> None:
        with suppress(Conflict):  # somebody else remembered it in the same moment
            await self._remember({"key_id": key_id, "check_value": check_value, "created_at": at})

    @writes(Doubt.REPEAT)
    async def _remember(self, transaction: Transaction, row: Mapping[str, Any]) -> None:
        if await transaction.first(self._one, {"id": row["key_id"]}) is None:
            await transaction.run(self._insert, row)

    @reads
    async def keys_in_use(self, transaction: Transaction) -> dict[str, KeyUse]:
        uses = {row[0]: KeyUse(sealed=row[1]) for row in await transaction.rows(self._sealed)}
        for row in await transaction.rows(self._digests):
            uses[row[0]] = uses.get(row[0], KeyUse())._replace(digests=row[1])
        return uses
