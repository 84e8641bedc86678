"""The schema of a SQL database, and how the database is."""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import partial
from typing import Final

from sqlalchemy import Connection, bindparam, insert, inspect, select, text

from tokenkeep._stepping import settle
from tokenkeep.errors import SchemaMismatch, StoreError
from tokenkeep.model import TierStatus
from tokenkeep.stores.sql.creating import create_missing
from tokenkeep.stores.sql.database import Database, Transaction
from tokenkeep.stores.sql.durability import unsafe_settings
from tokenkeep.stores.sql.errors import Conflict
from tokenkeep.stores.sql.repeating import Doubt, reads, writes
from tokenkeep.stores.sql.schema import SCHEMA_VERSION, Tables
from tokenkeep.stores.sql.servers.replica import Replica
from tokenkeep.stores.sql.sqlite.reading import FileReader
from tokenkeep.stores.sql.types import MARIADB
from tokenkeep.stores.sql.wire.question import Wire

_VERSION: Final = "schema_version"
_ALIVE: Final = text("SELECT 1")

_logger = logging.getLogger("tokenkeep")

_MARIADB_LOCKS: Final = (
    text("SELECT GET_LOCK('tokenkeep_schema', 60)"),
    text("SELECT RELEASE_LOCK('tokenkeep_schema')"),
)
_LOCKS: Final = {
    "postgresql": (text("SELECT pg_advisory_xact_lock(8316299830250469742)"), None),  # "tokenkeep", to the end of it
    **dict.fromkeys(MARIADB, _MARIADB_LOCKS),
}
"""How one process at a time creates the schema."""

_UPGRADE: Final = "run `tokenkeep db upgrade` once, with a URL that may change tables"


class SqlHealth:
    """Implements `Health`."""

    def __init__(
        self, database: Database, tables: Tables, *, reader: FileReader | Wire | None, link: tuple[str, ...] = ()
    ) -> None:
        self._database = database
        self._link = link
        self._tables = tables
        self._reader = reader
        meta = tables.meta
        self._read = select(meta.c.value).where(meta.c.name == bindparam("n"))
        self._write = insert(meta)

    async def prepare(self) -> None:
        found = await self._found()
        if found is None:
            await self._create()
            found = await self._found()
        if found != SCHEMA_VERSION:
            raise SchemaMismatch.of(self._database.name, found=found, expected=SCHEMA_VERSION, when_older=_UPGRADE)
        for warning in await self.warnings():
            _logger.warning("%s: %s", self._database.name, warning)

    @reads
    async def _found(self, transaction: Transaction) -> int | None:
        if not await transaction.plainly(self._has_meta):
            return None
        value = (await transaction.rows(self._read, {"n": _VERSION}))[:1]
        if not value:
            return None
        text_value: str = value[0][0]
        if not text_value.isdecimal():
            raise SchemaMismatch.unreadable(self._database.name, expected=SCHEMA_VERSION)
        return int(text_value)

    def _has_meta(self, connection: Connection) -> bool:
        meta = self._tables.meta
        return inspect(connection).has_table(meta.name, schema=meta.schema)

    async def _create(self) -> None:
        with suppress(Conflict):  # somebody else created it in the same moment
            await self._create_all()

    @writes(Doubt.REPEAT)
    async def _create_all(self, transaction: Transaction) -> None:
        """Create what is missing, one process at a time; MariaDB may stop half-way, and the next time does the rest.

        In a Galera cluster the lock is one node's, and a table that another makes meanwhile is a reason to look again.
        """
        lock, unlock = _LOCKS.get(self._database.dialect.name, (None, None))
        if lock is not None:
            await transaction.run(lock)
        try:
            await transaction.plainly(partial(create_missing, metadata=self._tables.metadata))
            if await transaction.first(self._read, {"n": _VERSION}) is None:
                await transaction.run(self._write, {"name": _VERSION, "value": str(SCHEMA_VERSION)})
        finally:
            if unlock is not None:
                await transaction.run(unlock)

    async def tiers(self) -> tuple[TierStatus, ...]:
        found = [await _tier(self._database.dialect.name, self._database)]
        if self._database.replica is not None:
            found.append(await _tier("replica", self._database.replica))
        return tuple(found)

    async def schema_version(self) -> int | None:
        try:
            return await self._found()
        except StoreError:
            return None

    async def warnings(self) -> tuple[str, ...]:
        return (*self._link, *await self._settings())

    @reads
    async def _settings(self, transaction: Transaction) -> tuple[str, ...]:
        return await unsafe_settings(self._database.dialect, transaction)

    async def close(self) -> None:
        if self._reader is not None:
            await settle(self._reader.close())
        await self._database.close()

    def forget(self) -> None:
        if self._reader is not None:
            self._reader.forget()
        self._database.forget_connections()


async def _tier(name: str, server: Database | Replica) -> TierStatus:
    try:
        await server.read(lambda transaction: transaction.first(_ALIVE))
    except StoreError as error:
        return TierStatus(name=name, healthy=False, reason=str(error))
    return TierStatus(name=name, healthy=True)
