"""A SQL database for work on its tables themselves: schema, roles."""

from __future__ import annotations

from typing import Final, NamedTuple

from tokenkeep.errors import ConfigurationError
from tokenkeep.stores.sql.database import Database
from tokenkeep.stores.sql.naming import Naming
from tokenkeep.stores.sql.servers import mariadb, postgresql
from tokenkeep.stores.sql.servers.address import Address, parsed
from tokenkeep.stores.sql.servers.engine import EngineDatabase
from tokenkeep.stores.sql.sqlite.database import SqliteDatabase

_SERVERS: Final = {"postgresql": postgresql, "mariadb": mariadb, "mysql": mariadb}


class Direct(NamedTuple):
    """A database that is closed by whoever opened it, and what its tables are called."""

    database: Database
    naming: Naming


def open_database(url: str) -> Direct:
    """Open a database for the sync face; nothing is connected yet.

    Raises:
        ConfigurationError: it is none of SQL, or the URL cannot be read.
    """
    scheme = url.partition("://")[0].partition("+")[0]
    if scheme == "sqlite":
        return _sqlite(url)
    module = _SERVERS.get(scheme)
    if module is None:
        msg = "this is for databases with tables: sqlite://, postgresql://, mariadb://; others need no such step"
        raise ConfigurationError(msg)
    address = Address.read(url, module.EXAMPLE)
    try:
        engine = module.open_engine(module.Link(address, asynchronous=False), asynchronous=False)
    except ImportError as error:
        extra = "postgres" if module is postgresql else "mysql"
        msg = f'the driver for {scheme}:// is missing ({error.name}): pip install "tokenkeep[{extra}]"'
        raise ConfigurationError(msg) from error
    name = f"the {scheme} database {address.url.database}"
    return Direct(EngineDatabase(engine, name=name, limits=address.limits), address.naming)


def _sqlite(url: str) -> Direct:
    found = parsed(url, "sqlite:///file")
    path = None if found.database in {None, "", ":memory:"} else str(found.database)
    prefix = str(found.query.get("table_prefix", Naming().prefix))
    database = SqliteDatabase(path, name="the SQLite database", asynchronous=False)
    return Direct(database, Naming(prefix))
