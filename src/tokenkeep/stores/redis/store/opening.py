"""From a URL to Redis as the store itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from tokenkeep.errors import ConfigurationError
from tokenkeep.ports import Clock, OpenedStore
from tokenkeep.stores.redis.address import parsed
from tokenkeep.stores.redis.bell import RedisBell
from tokenkeep.stores.redis.client import Clients
from tokenkeep.stores.redis.store.backend import redis_backend
from tokenkeep.stores.redis.store.database import Database
from tokenkeep.stores.redis.store.names import Names

TIMEOUT: Final = 2.0
"""Seconds for each wait on a socket."""

RETRY: Final = 5.0
"""Seconds for which a lost server is looked for again: a failover takes a few."""

_UNVERIFIED: Final = (
    "the link to the server is not verified, so somebody in between could read and change what goes over it; "
    "use rediss://, with ssl_ca_certs= for an authority of your own"
)

_NAMES: Final = {"": "the Redis", "cluster": "the Redis Cluster", "sentinel": "the Redis behind sentinels"}


def open_redis(url: str, *, asynchronous: bool, actor: str, clock: Clock | None) -> OpenedStore:
    """Open a Redis of any form."""
    address = parsed(url)
    if address.max_staleness is not None:
        msg = "max_staleness= is for Redis as a cache; as the store itself it is asked every time"
        raise ConfigurationError(msg)
    address.check_files()
    database = Database(
        Clients(replace(address, timeout=address.timeout or TIMEOUT), asynchronous=asynchronous),
        names=Names(address.prefix),
        name=_NAMES[address.form],
        in_cluster=address.form == "cluster",
        asynchronous=asynchronous,
        patience=RETRY if address.retry_timeout is None else address.retry_timeout,
    )
    link = () if address.tls or address.is_local else (_UNVERIFIED,)
    backend = redis_backend(database, actor=actor, clock=clock, link=link)
    bell = RedisBell(address, database.names.place_of, asynchronous=asynchronous)
    return OpenedStore(backend=replace(backend, bell=bell))
