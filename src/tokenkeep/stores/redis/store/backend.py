"""A whole backend on one Redis."""

from __future__ import annotations

from tokenkeep.ports import Backend, Clock
from tokenkeep.stores.redis.store.audit import RedisAudit
from tokenkeep.stores.redis.store.database import Database
from tokenkeep.stores.redis.store.health import RedisHealth
from tokenkeep.stores.redis.store.issued import RedisIssued
from tokenkeep.stores.redis.store.keys import RedisKeys
from tokenkeep.stores.redis.store.leases import RedisLeases
from tokenkeep.stores.redis.store.tokens import RedisTokens
from tokenkeep.stores.redis.store.transfer import RedisTransfer
from tokenkeep.stores.redis.store.wishes import RedisWishes


def redis_backend(database: Database, *, actor: str, clock: Clock | None = None, link: tuple[str, ...] = ()) -> Backend:
    """Furnish the rooms of one Redis.

    Args:
        database: what is asked.
        actor: who the audit trail says did it.
        clock: times the leases; `None` for the server's own clock.
        link: what there is to warn of about the way to the server.
    """
    audit = RedisAudit(database, actor=actor)
    return Backend(
        tokens=RedisTokens(database, audit),
        wishes=RedisWishes(database, audit),
        leases=RedisLeases(database, audit, clock=clock),
        issued=RedisIssued(database, audit),
        audit=audit,
        keys=RedisKeys(database),
        health=RedisHealth(database, link=link),
        transfer=RedisTransfer(database),
    )
