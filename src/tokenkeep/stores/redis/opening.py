"""From a URL to Redis."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final

from tokenkeep.errors import ConfigurationError
from tokenkeep.ports import Backend, Clock, Sealer
from tokenkeep.stores.redis.address import parsed
from tokenkeep.stores.redis.bell import RedisBell
from tokenkeep.stores.redis.cache import RedisCache
from tokenkeep.stores.redis.client import Clients
from tokenkeep.stores.tiered.backend import tiered_backend

MAX_STALENESS: Final = timedelta(seconds=5)
"""How old a copy may be when its writer could not reach Redis; otherwise it is never old."""


def put_in_front(url: str, durable: Backend, *, asynchronous: bool, sealer: Sealer, clock: Clock) -> Backend:
    """Put a Redis tier in front of a durable backend. Nothing is connected before the first look-up.

    Where the durable store tells of new tokens by itself, that is what is listened to: it tells of those too
    that were put in place past Redis.
    """
    address = parsed(url)
    if address.retry_timeout is not None:
        msg = "retry_timeout= is for Redis as the store itself; a cache that is lost is left alone for a while"
        raise ConfigurationError(msg)
    address.check_files()
    cache = RedisCache(Clients(address, asynchronous=asynchronous), prefix=address.prefix)
    tiered = tiered_backend(durable, cache, sealer, clock=clock, max_staleness=address.max_staleness or MAX_STALENESS)
    if tiered.bell is not None:
        return tiered
    return replace(tiered, bell=RedisBell(address, cache.key, asynchronous=asynchronous))
