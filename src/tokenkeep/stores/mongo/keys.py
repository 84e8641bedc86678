"""What a database in MongoDB knows of the keys."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime

from pymongo.errors import DuplicateKeyError

from tokenkeep.ports import KeyUse
from tokenkeep.stores.mongo.database import Database
from tokenkeep.stores.mongo.documents import suspicion
from tokenkeep.stores.mongo.schema import HISTORY, ISSUED, KEY, TOKEN, WISHED
from tokenkeep.stores.plain import to_micros


class MongoKeys:
    """Implements `KeyStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def known_keys(self) -> dict[str, bytes]:
        with self._database.asking() as calls:
            rows = await calls.rows(KEY, {})
        with suspicion(self._database.name):
            return {row["_id"]: bytes(row["check_value"]) for row in rows}

    async def remember_key(self, key_id: str, check_value: bytes, at: datetime) -> None:
        new = {"$setOnInsert": {"check_value": check_value, "created_at": to_micros(at)}}
        with self._database.asking() as calls, suppress(DuplicateKeyError):  # somebody else, in the same moment
            await calls.update(KEY, {"_id": key_id}, new, upsert=True)

    async def keys_in_use(self) -> dict[str, KeyUse]:
        by_key = {"$group": {"_id": "$key_id", "count": {"$sum": 1}}}
        with self._database.asking() as calls:
            sealing = await calls.aggregate(TOKEN, [by_key])
            sealing += await calls.aggregate(HISTORY, [{"$match": {"revoke_at": WISHED}}, by_key])
            digesting = await calls.aggregate(ISSUED, [{"$match": {"key_id": {"$ne": None}}}, by_key])
        uses: dict[str, KeyUse] = {}
        for row in sealing:
            uses[row["_id"]] = KeyUse(sealed=uses.get(row["_id"], KeyUse()).sealed + row["count"])
        for row in digesting:
            uses[row["_id"]] = uses.get(row["_id"], KeyUse())._replace(digests=row["count"])
        return uses
