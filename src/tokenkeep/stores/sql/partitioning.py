"""Making the table of issued tokens one that is divided into partitions, while it is empty."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, MetaData, delete, insert, select, text

from tokenkeep.errors import ConfigurationError
from tokenkeep.stores.sql.database import Database, Transaction
from tokenkeep.stores.sql.naming import Naming
from tokenkeep.stores.sql.partitions import WIDTH, Layout, SqlPartitions, ddl
from tokenkeep.stores.sql.repeating import Doubt, writes

MOST_DAYS: Final = 366

_PATIENCE: Final = text("SET LOCAL lock_timeout = '3s'")
_LOCK: Final = "LOCK TABLE %(issued)s IN ACCESS EXCLUSIVE MODE"


class Partitioning:
    """Divides the table of one database.

    Raises:
        ConfigurationError: the database is none of PostgreSQL.
    """

    def __init__(self, database: Database, naming: Naming) -> None:
        if database.dialect.name != "postgresql":
            msg = f"partitions are for PostgreSQL, not for {database.dialect.name}; there purges delete in batches"
            raise ConfigurationError(msg)
        self._database = database
        tables = naming.tables()
        self.partitions = SqlPartitions(database, tables)
        self._meta = tables.meta
        self._issued = tables.issued.to_metadata(MetaData())  # the one that everybody has is not divided
        self._issued.dialect_options["postgresql"]["partition_by"] = "RANGE (id)"

    async def divide(self, days: int) -> bool:
        """Divide the table into partitions of so many days; `False`: it is so already.

        It is made anew, so `tokenkeep db roles` must be run again after it. Safe to repeat.

        Raises:
            ConfigurationError: it holds tokens, or is divided in another way.
        """
        if not 1 <= days <= MOST_DAYS:
            msg = f"a partition holds 1 to {MOST_DAYS} days, not {days}"
            raise ConfigurationError(msg)
        layout = await self.partitions.layout()
        if layout is None:
            await self._divide(days)
        elif layout.days != days:
            raise _divided_otherwise(layout)
        return layout is None

    @writes(Doubt.REPEAT)
    async def _divide(self, transaction: Transaction, days: int) -> None:
        await transaction.run(_PATIENCE)
        await transaction.run(ddl(_LOCK, {"issued": self.partitions.parent}))
        if await transaction.first(select(self._issued.c.id).limit(1)) is not None:
            msg = "the table of issued tokens is not empty: divide a new database, then `tokenkeep db copy` into it"
            raise ConfigurationError(msg)
        await transaction.plainly(self._make_anew)
        await transaction.run(delete(self._meta).where(self._meta.c.name == WIDTH))
        await transaction.run(insert(self._meta), {"name": WIDTH, "value": str(days)})

    def _make_anew(self, connection: Connection) -> None:
        self._issued.drop(connection)
        self._issued.create(connection)


def _divided_otherwise(layout: Layout) -> ConfigurationError:
    how = "in another way" if layout.days is None else f"into partitions of {layout.days} day(s)"
    return ConfigurationError(
        f"the table of issued tokens is divided {how} already; to change that, `tokenkeep db copy` into a new database"
    )
