"""A whole backend on one SQL database."""

from __future__ import annotations

from tokenkeep.ports import Backend, Bell, Clock
from tokenkeep.stores.sql.audit import SqlAudit
from tokenkeep.stores.sql.database import Database
from tokenkeep.stores.sql.health import SqlHealth
from tokenkeep.stores.sql.issued import SqlIssued
from tokenkeep.stores.sql.keys import SqlKeys
from tokenkeep.stores.sql.leases import SqlLeases
from tokenkeep.stores.sql.naming import Naming
from tokenkeep.stores.sql.partitions import SqlPartitions
from tokenkeep.stores.sql.sqlite.reading import FileReader
from tokenkeep.stores.sql.tokens import SqlTokens
from tokenkeep.stores.sql.transfer import SqlTransfer
from tokenkeep.stores.sql.wire.question import Wire
from tokenkeep.stores.sql.wishes import SqlWishes


def sql_backend(
    database: Database,
    *,
    actor: str,
    clock: Clock | None = None,
    reader: FileReader | Wire | None = None,
    link: tuple[str, ...] = (),
    naming: Naming | None = None,
    bell: Bell | None = None,
) -> Backend:
    """Furnish the rooms of one database.

    Args:
        database: transactions on its engine.
        actor: who the audit trail says did it.
        clock: times the leases; `None` for the database's own clock.
        reader: looks up single rows past SQLAlchemy; `None` where there is no such way.
        link: what there is to warn of about the way to the server.
        naming: what the tables are called, when not as usual.
        bell: tells of new tokens; `None` where there is none.
    """
    tables = (naming or Naming()).tables()
    audit = SqlAudit(database, tables, actor=actor)
    partitions = SqlPartitions(database, tables) if database.dialect.name == "postgresql" else None
    leases = SqlLeases(database, tables, audit, clock=clock)
    return Backend(
        tokens=SqlTokens(database, tables, audit, leases, reader=reader),
        wishes=SqlWishes(database, tables, audit),
        leases=leases,
        issued=SqlIssued(database, tables, audit, partitions, reader=reader),
        audit=audit,
        keys=SqlKeys(database, tables),
        transfer=SqlTransfer(database, tables, partitions),
        partitions=partitions,
        one_writer=database.dialect.name == "sqlite",
        health=SqlHealth(database, tables, reader=reader, link=link),
        bell=bell,
    )
