"""What a SQL database knows of the keys."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import bindparam, func, insert, or_, select

from tokenkeep.stores.sql.database import Database
from tokenkeep.stores.sql.errors import Conflict
from tokenkeep.stores.sql.schema import Tables


class SqlKeys:
    """Implements `KeyStore`."""

    def __init__(self, database: Database, tables: Tables) -> None:
        self._database = database
        key, token = tables.key, tables.token.c
        self._known = select(key.c.key_id, key.c.check_value)
        self._one = select(key.c.key_id).where(key.c.key_id == bindparam("id"))
        self._insert = insert(key)
        self._in_use = (
            select(token.key_id, func.count())
            .where(or_(token.access_sealed.is_not(None), token.refresh_sealed.is_not(None)))
            .group_by(token.key_id)
        )

    async def known_keys(self) -> dict[str, bytes]:
        async with self._database.reading() as transaction:
            return {key_id: bytes(check) for key_id, check in await transaction.rows(self._known)}

    async def remember_key(self, key_id: str, check_value: bytes, at: datetime) -> None:
        try:
            async with self._database.writing() as transaction:
                if await transaction.first(self._one, {"id": key_id}) is None:
                    await transaction.run(
                        self._insert, {"key_id": key_id, "check_value": check_value, "created_at": at}
                    )
        except Conflict:  # somebody else remembered it in the same moment
            return

    async def keys_in_use(self) -> dict[str, int]:
        async with self._database.reading() as transaction:
            return {key_id: rows for key_id, rows in await transaction.rows(self._in_use)}
