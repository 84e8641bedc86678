"""A whole backend on one database in MongoDB."""

from __future__ import annotations

from tokenkeep.ports import Backend, Clock
from tokenkeep.stores.mongo.audit import MongoAudit
from tokenkeep.stores.mongo.bell import MongoBell
from tokenkeep.stores.mongo.database import Database
from tokenkeep.stores.mongo.health import MongoHealth
from tokenkeep.stores.mongo.issued import MongoIssued
from tokenkeep.stores.mongo.keys import MongoKeys
from tokenkeep.stores.mongo.leases import MongoLeases
from tokenkeep.stores.mongo.tokens import MongoTokens
from tokenkeep.stores.mongo.transfer import MongoTransfer
from tokenkeep.stores.mongo.wishes import MongoWishes


def mongo_backend(database: Database, *, actor: str, clock: Clock | None = None) -> Backend:
    """Furnish the rooms of one database.

    Args:
        database: transactions on its client.
        actor: who the audit trail says did it.
        clock: times the leases; `None` for the server's own clock.
    """
    audit = MongoAudit(database, actor=actor)
    leases = MongoLeases(database, audit, clock=clock)
    return Backend(
        tokens=MongoTokens(database, audit, leases),
        wishes=MongoWishes(database, audit),
        leases=leases,
        issued=MongoIssued(database, audit),
        audit=audit,
        keys=MongoKeys(database),
        health=MongoHealth(database),
        transfer=MongoTransfer(database),
        bell=MongoBell(database),
    )
