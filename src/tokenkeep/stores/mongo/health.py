"""The schema of a database in MongoDB, and how the database is."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

import pymongo
from pymongo.errors import DuplicateKeyError

from tokenkeep._stepping import settle
from tokenkeep.errors import ConfigurationError, SchemaMismatch, StoreError
from tokenkeep.model import TierStatus
from tokenkeep.stores.mongo.database import PATIENCE, Database
from tokenkeep.stores.mongo.errors import translated
from tokenkeep.stores.mongo.schema import INDEXES, META, SCHEMA_VERSION

_VERSION: Final = "schema_version"

_OLDEST: Final = 9
"""The wire version of MongoDB 4.4, the first that makes collections within a transaction."""

_NO_WAY_UP: Final = "this program cannot bring it up to date; restore it from a backup or point the URL elsewhere"


class MongoHealth:
    """Implements `Health`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def prepare(self) -> None:
        await self._check_deployment()
        found = await self._found()
        if found is None:
            await self._create()
            found = await self._found()
        if found != SCHEMA_VERSION:
            raise SchemaMismatch.of(self._database.name, found=found, expected=SCHEMA_VERSION, when_older=_NO_WAY_UP)

    async def _check_deployment(self) -> None:
        """Refuse what has no transactions: without them a change could lose its audit entry."""
        name = self._database.name
        hello = await self._database.hello()
        if not (hello.get("setName") or hello.get("msg") == "isdbgrid"):
            msg = (
                f"{name}: a single server without replica set has no transactions; start it with --replSet and call "
                "rs.initiate() once (a set of one member will do)"
            )
            raise ConfigurationError(msg)
        if hello.get("maxWireVersion", 0) < _OLDEST:
            msg = f"{name}: the server is older than MongoDB 4.4; use a newer one"
            raise ConfigurationError(msg)
        if not hello.get("isWritablePrimary"):
            msg = f"{name}: this member is a secondary and takes no writes; name the replica set in the URL"
            raise ConfigurationError(msg)

    async def _found(self) -> int | None:
        with self._database.asking() as calls:
            row = await calls.first(META, {"_id": _VERSION})
        if row is None:
            return None
        value = row.get("value")
        if not isinstance(value, int):
            raise SchemaMismatch.unreadable(self._database.name, expected=SCHEMA_VERSION)
        return value

    async def _create(self) -> None:
        """Make the indexes, and only then say so: whoever is interrupted between is repeated."""
        await self.index()
        with self._database.asking() as calls, suppress(DuplicateKeyError):
            await calls.update(META, {"_id": _VERSION}, {"$setOnInsert": {"value": SCHEMA_VERSION}}, upsert=True)

    async def index(self) -> None:
        with translated(self._database.name), pymongo.timeout(PATIENCE):
            for collection, indexes in INDEXES.items():
                await settle(self._database.handle()[collection].create_indexes(indexes))

    async def tiers(self) -> tuple[TierStatus, ...]:
        try:
            with translated(self._database.name), pymongo.timeout(PATIENCE):
                await settle(self._database.handle().command("ping"))
        except StoreError as error:
            return (TierStatus(name="mongodb", healthy=False, reason=str(error)),)
        return (TierStatus(name="mongodb", healthy=True),)

    async def schema_version(self) -> int | None:
        try:
            return await self._found()
        except StoreError:
            return None

    async def differences(self) -> list[str]:
        wrong = []
        for collection, indexes in INDEXES.items():
            with translated(self._database.name), pymongo.timeout(PATIENCE):
                there = await settle(self._database.handle()[collection].index_information())
            wrong += [_difference(collection, there, index.document) for index in indexes]
        return [difference for difference in wrong if difference]

    async def warnings(self) -> tuple[str, ...]:
        """Name the indexes that are missing or different."""
        return tuple(await self.differences())

    async def close(self) -> None:
        await self._database.close()

    def forget(self) -> None:
        self._database.forget()


def _difference(collection: str, there: Any, wanted: Any) -> str:
    """Say what is wrong with an index; nothing when it is right."""
    index, found = f"the index {wanted['name']} of {collection}", there.get(wanted["name"])
    if found is None:
        return f"{index} is missing; `tokenkeep db init` makes it"
    key, ends = list(wanted["key"].items()), wanted.get("expireAfterSeconds")
    if list(found["key"]) == key and found.get("expireAfterSeconds") == ends:
        return ""
    return f"{index} is another than tokenkeep's; drop it, then `tokenkeep db init` makes it anew"
