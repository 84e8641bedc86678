"""A durable backend with a cache in front of its tokens."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Final

from tokenkeep.model import TierStatus
from tokenkeep.ports import Backend, Clock, Health, Sealer
from tokenkeep.stores.tiered.breaker import Breaker
from tokenkeep.stores.tiered.cache import RecordCache
from tokenkeep.stores.tiered.tokens import TieredTokens

REST: Final = 2.0
"""Seconds for which a cache that failed is left alone."""


class TieredHealth:
    """Implements `Health`: that of the durable store, and one tier more."""

    def __init__(self, durable: Health, tokens: TieredTokens, cache: RecordCache) -> None:
        self._durable = durable
        self._tokens = tokens
        self._cache = cache

    async def prepare(self) -> None:
        await self._durable.prepare()

    async def tiers(self) -> tuple[TierStatus, ...]:
        return (*await self._durable.tiers(), await self._tokens.tier())

    async def schema_version(self) -> int | None:
        return await self._durable.schema_version()

    async def warnings(self) -> tuple[str, ...]:
        return await self._durable.warnings()

    async def close(self) -> None:
        try:
            await self._durable.close()
        finally:
            await self._cache.close()

    def forget(self) -> None:
        self._durable.forget()
        self._cache.forget()


def tiered_backend(
    durable: Backend,
    cache: RecordCache,
    sealer: Sealer,
    *,
    clock: Clock,
    max_staleness: timedelta,
    monotonic: Callable[[], float] = time.monotonic,
) -> Backend:
    """Put a cache in front of the tokens of a backend.

    Args:
        durable: it alone decides.
        cache: it belongs to the new backend, which closes it.
        sealer: seals the copies.
        clock: by which tokens end.
        max_staleness: how long a copy lives.
        monotonic: seconds of a clock that is never set.
    """
    tokens = TieredTokens(
        durable.tokens,
        cache,
        sealer,
        clock=clock,
        breaker=Breaker(cache.name, cool_down=REST, monotonic=monotonic),
        max_staleness=max_staleness,
        monotonic=monotonic,
    )
    return replace(durable, tokens=tokens, health=TieredHealth(durable.health, tokens, cache))
