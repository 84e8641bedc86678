"""MongoDB tells of new tokens by a change stream."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import pymongo

from tokenkeep._stepping import settle
from tokenkeep.model import Account
from tokenkeep.stores.mongo.database import PATIENCE, REACH, Database
from tokenkeep.stores.mongo.records import slot
from tokenkeep.stores.mongo.schema import TOKEN

ONLY_KEYS: Final = [{"$match": {"operationType": "insert"}}, {"$project": {"documentKey": 1}}]
"""A token that is put in place is a new document. Nothing of it but its `_id` leaves the server."""

_AWAIT: Final = 250
"""Milliseconds for which the server waits for news before it says that there are none."""


class MongoBell:
    """Implements `Bell`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def topic(self, account: Account, kind: str) -> str:
        return slot(account, kind)

    async def listen(self) -> MongoEar:
        with pymongo.timeout(REACH):
            collection = self._database.handle()[TOKEN]
            return MongoEar(await settle(collection.watch(ONLY_KEYS, max_await_time_ms=_AWAIT)))


class MongoEar:
    """Implements `Ear`. PyMongo resumes a stream that was cut where it was; what it cannot resume is an error."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def heard(self, seconds: float) -> Collection[str]:  # noqa: ARG002  # the stream knows how long it waits
        with pymongo.timeout(PATIENCE):
            change = await settle(self._stream.try_next())
        return () if change is None else {change["documentKey"]["_id"]}

    async def close(self) -> None:
        with pymongo.timeout(1):
            await settle(self._stream.close())
