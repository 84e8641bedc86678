"""Bringing the schema of a database up to date, by Alembic."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, LargeBinary, String, inspect, select, text

from tokenkeep.errors import ConfigurationError, SchemaMismatch, StoreUnavailable
from tokenkeep.stores.sql.creating import create_schema
from tokenkeep.stores.sql.database import Database, Transaction
from tokenkeep.stores.sql.naming import Naming
from tokenkeep.stores.sql.partitions import Layout, SqlPartitions
from tokenkeep.stores.sql.repeating import Doubt, reads, writes
from tokenkeep.stores.sql.types import MARIADB

try:
    from alembic import command
    from alembic.autogenerate import compare_metadata
    from alembic.config import Config
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory
except ImportError as error:
    missing = 'Alembic is missing: pip install "tokenkeep[postgres]" or "tokenkeep[mysql]", both bring it'
    raise ConfigurationError(missing) from error

HERE: Final = Path(__file__).with_name("migrations")

_MARIADB_LOCKS: Final = (
    text("SELECT GET_LOCK('tokenkeep_schema', 60)"),
    text("SET SESSION lock_wait_timeout = 3"),
    text("SELECT RELEASE_LOCK('tokenkeep_schema')"),
)
_COMMIT: Final = text("COMMIT")
_LOCKS: Final = {
    "postgresql": (
        text("SELECT pg_advisory_xact_lock(8316299830250469742)"),
        text("SET LOCAL lock_timeout = '3s'"),
        None,
    ),
    **dict.fromkeys(MARIADB, _MARIADB_LOCKS),
}
"""One at a time, those of `SqlHealth.prepare` included; and DDL waits but briefly for a table, for traffic queues
behind it: it gives up and tries again. On SQLite BEGIN IMMEDIATE does both."""


@dataclass(frozen=True, slots=True)
class State:
    """How far a database is.

    Attributes:
        found: its schema version; `None` when there is none yet.
        newest: the one that this program leads to.
    """

    found: int | None
    newest: int

    @property
    def is_newest(self) -> bool:
        """Tell whether there is nothing to do."""
        return self.found == self.newest


class Migrations:
    """The revisions, and one database they are applied to.

    Args:
        versions: folders of revisions; those of this package when none are named.
    """

    def __init__(self, database: Database, naming: Naming, *, versions: Sequence[Path] = ()) -> None:
        self._database = database
        self._naming = naming
        self._tables = naming.tables()
        self._config = Config()
        self._config.set_main_option("script_location", _escaped(HERE))
        self._config.set_main_option("path_separator", "newline")
        folders = "\n".join(_escaped(folder) for folder in versions or (HERE / "versions",))
        self._config.set_main_option("version_locations", folders)
        self._config.attributes["naming"] = naming
        head = ScriptDirectory.from_config(self._config).get_current_head()
        self.newest = int(head or 0)

    @reads
    async def state(self, transaction: Transaction) -> State:
        """Tell how far the database is."""
        return State(await transaction.plainly(self._found), self.newest)

    def _found(self, connection: Connection) -> int | None:
        """Read the schema version that programs go by; Alembic's own table follows it."""
        meta = self._tables.meta
        if not inspect(connection).has_table(meta.name, schema=meta.schema):
            return None
        value = connection.execute(select(meta.c.value).where(meta.c.name == "schema_version")).scalar()
        if value is not None and not value.isdecimal():
            raise SchemaMismatch.unreadable(self._database.name, expected=self.newest)
        return None if value is None else int(value)

    @writes(Doubt.REPEAT)
    async def upgrade(self, transaction: Transaction) -> State:
        """Apply what is missing, in one transaction where the database can; return how far it was before.

        Safe to repeat, to interrupt, and to run in several processes at once.

        Raises:
            SchemaMismatch: the database is newer than this program.
        """
        lock, patience, unlock = _LOCKS.get(self._database.dialect.name, (None, None, None))
        if lock is not None and (await transaction.first(lock))[0] == 0:
            msg = f"{self._database.name} is being upgraded by another process; let that one finish, then try again"
            raise StoreUnavailable(msg)
        try:
            if patience is not None:
                await transaction.run(patience)
            found = await transaction.plainly(self._upgrade)
            if unlock is not None:
                await transaction.run(_COMMIT)  # before the next one may begin
            return State(found, self.newest)
        finally:
            if unlock is not None:
                await transaction.run(unlock)

    def _upgrade(self, connection: Connection) -> int | None:
        found = self._found(connection)
        if found is not None and found > self.newest:
            reason = (
                f"{self._database.name} holds schema {found}, this program knows up to {self.newest}: "
                "it was written by a newer tokenkeep; upgrade this program"
            )
            raise SchemaMismatch(reason, found=found, expected=self.newest)
        create_schema(connection, self._naming.schema)  # Alembic puts its own table there first
        self._config.attributes["connection"] = connection
        if found is not None:
            command.stamp(self._config, f"{found:04}", purge=True)
        command.upgrade(self._config, "head")
        return found

    async def differences(self) -> list[str]:
        """Return a sentence for each way in which the tables are not what this program expects."""
        layout = await self.layout()
        return [*await self._differences(), *([] if layout is None else layout.faults())]

    async def layout(self) -> Layout | None:
        """Return how the table of issued tokens is divided; `None`: it is one table."""
        if self._database.dialect.name != "postgresql":
            return None
        return await SqlPartitions(self._database, self._tables).layout()

    @reads
    async def _differences(self, transaction: Transaction) -> list[str]:
        return [_sentence(item) for item in _flat(await transaction.plainly(self._compared))]

    def _compared(self, connection: Connection) -> Any:
        default = inspect(connection).default_schema_name
        schema = None if self._naming.schema == default else self._naming.schema  # Alembic knows it by no name
        tables = Naming(self._naming.prefix, schema).tables()
        ours = {table.name for table in tables.metadata.sorted_tables}

        def include(name: str | None, kind: str, _: Any) -> bool:
            if kind == "schema":
                return name == schema
            return kind != "table" or name in ours

        options = {"include_name": include, "include_schemas": schema is not None, "compare_type": compare_type}
        return compare_metadata(MigrationContext.configure(connection, opts=options), tables.metadata)

    def sql(self, *, after: int = 0) -> str:
        """Return what `upgrade` would execute on a database of schema version `after`; nothing is connected."""
        written = io.StringIO()
        self._config.attributes |= {"dialect": self._database.dialect.name, "buffer": written}
        command.upgrade(self._config, f"{after:04}:head" if after else "head", sql=True)
        return written.getvalue()


_BLOBS: Final = ((2**8, "TINYBLOB"), (2**16, "BLOB"), (2**24, "MEDIUMBLOB"))


def _escaped(path: Path) -> str:
    return str(path).replace("%", "%%")


def compare_type(context: Any, _column: object, _wanted: object, found: Any, wanted: Any) -> bool | None:
    """Tell whether a type is another one, for Alembic's option of this name; `None`: Alembic knows.

    MariaDB makes of BLOB(n) the smallest type that holds n. To PostgreSQL text of any length is the same by
    either of its names, and SQLAlchemy 2.0 chooses another one than 2.1.
    """
    implemented = wanted.dialect_impl(context.dialect)
    if (
        context.dialect.name == "postgresql"
        and _is_any_text(found)
        and _is_any_text(getattr(implemented, "impl_instance", implemented))
    ):
        return False
    if context.dialect.name not in MARIADB or not isinstance(implemented, LargeBinary) or not implemented.length:
        return None
    smallest = next((name for length, name in _BLOBS if implemented.length < length), "LONGBLOB")
    return str(found.__visit_name__) not in {smallest, "BINARY"}


def _is_any_text(kind: Any) -> bool:
    return isinstance(kind, String) and kind.length is None


def _flat(differences: Any) -> Iterable[tuple[Any, ...]]:
    """Changes of one column come in a list."""
    for item in differences:
        if isinstance(item, list):
            yield from item
        else:
            yield item


def _sentence(difference: tuple[Any, ...]) -> str:
    what, *facts = difference
    names = [str(getattr(fact, "name", fact)) for fact in facts if fact is not None and not isinstance(fact, dict)]
    return f"{str(what).replace('_', ' ')}: {', '.join(names)}"
