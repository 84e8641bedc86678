"""The schema of a Redis, how it is, and whether it keeps what it acknowledges."""

from __future__ import annotations

import logging
from typing import Final

from tokenkeep.errors import ConfigurationError, SchemaMismatch, StoreError
from tokenkeep.model import TierStatus
from tokenkeep.stores.redis.store.database import Database
from tokenkeep.stores.redis.store.durability import SECOND, Settings, settings_of

SCHEMA_VERSION: Final = 2

_logger = logging.getLogger("tokenkeep")

_NO_WAY_UP: Final = "this program cannot bring it up to date; restore it from a backup or point the URL elsewhere"


class RedisHealth:
    """Implements `Health`."""

    def __init__(self, database: Database, *, link: tuple[str, ...]) -> None:
        self._database = database
        self._link = link

    async def prepare(self) -> None:
        found = await self._found()
        if found is None:
            await self._database.ask("SET", self._database.names.schema, SCHEMA_VERSION, "NX")
            found = await self._found()
        if found != SCHEMA_VERSION:
            raise SchemaMismatch.of(self._database.name, found=found, expected=SCHEMA_VERSION, when_older=_NO_WAY_UP)
        settings = await self._settings()
        if any(one.evicts for one in settings):
            msg = (
                f"{self._database.name}: with a maxmemory-policy of allkeys-... it throws tokens and their history "
                "away when its memory is full; set it to noeviction"
            )
            raise ConfigurationError(msg)
        for warning in self._sentences(settings):
            if warning != SECOND:
                _logger.warning("%s: %s", self._database.name, warning)

    async def _found(self) -> int | None:
        value = await self._database.get(self._database.names.schema)
        if value is None:
            return None
        if not value.isdigit():
            raise SchemaMismatch.unreadable(self._database.name, expected=SCHEMA_VERSION)
        return int(value)

    async def tiers(self) -> tuple[TierStatus, ...]:
        try:
            await self._database.get(self._database.names.schema)
        except StoreError as error:
            return (TierStatus(name="redis", healthy=False, reason=str(error)),)
        return (TierStatus(name="redis", healthy=True),)

    async def schema_version(self) -> int | None:
        try:
            return await self._found()
        except StoreError:
            return None

    async def warnings(self) -> tuple[str, ...]:
        return self._sentences(await self._settings())

    def _sentences(self, settings: list[Settings]) -> tuple[str, ...]:
        """Return what there is to warn of, once, whichever servers it is true of."""
        return (*self._link, *dict.fromkeys(sentence for one in settings for sentence in one.warnings))

    async def _settings(self) -> list[Settings]:
        async def ask() -> list[Settings]:
            return [await settings_of(node) for node in await self._database.clients.nodes()]

        return await self._database.repeated(ask)

    async def close(self) -> None:
        await self._database.clients.close()

    def forget(self) -> None:
        self._database.forget()
