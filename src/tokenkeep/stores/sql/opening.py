"""From a URL, or from an engine that the caller lends, to a SQL backend."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from tokenkeep.errors import ConfigurationError
from tokenkeep.ports import Clock, OpenedStore
from tokenkeep.stores.sql.backend import sql_backend
from tokenkeep.stores.sql.naming import Naming
from tokenkeep.stores.sql.servers import mariadb, postgresql
from tokenkeep.stores.sql.servers.address import Address, parsed
from tokenkeep.stores.sql.servers.engine import EngineDatabase
from tokenkeep.stores.sql.servers.replica import Replica
from tokenkeep.stores.sql.sqlite.bell import FileBell
from tokenkeep.stores.sql.sqlite.database import SqliteDatabase
from tokenkeep.stores.sql.sqlite.reading import FileReader
from tokenkeep.stores.sql.types import MARIADB

_SQLITE_DRIVERS: Final = {False: ("", "pysqlite"), True: ("", "aiosqlite")}
_LENT: Final = {"postgresql": "PostgreSQL", **dict.fromkeys(MARIADB, "MariaDB")}


def open_sqlite(url: str, *, asynchronous: bool, actor: str, clock: Clock | None) -> OpenedStore:
    """Open a SQLite file or memory."""
    found = parsed(url, "sqlite:///file")
    _, _, driver = found.drivername.partition("+")
    if driver not in _SQLITE_DRIVERS[asynchronous]:
        face = "async" if asynchronous else "sync"
        msg = f"the {face} face does not take the SQLite driver {driver!r}; leave it out of the URL"
        raise ConfigurationError(msg)
    options = dict(found.query)
    naming = Naming(str(options.pop("table_prefix", Naming().prefix)))
    if options:
        msg = f"a SQLite URL takes no {', '.join(sorted(options))}; write sqlite:///file, or name a table_prefix"
        raise ConfigurationError(msg)
    path = None if found.database in {None, "", ":memory:"} else str(found.database)
    name = "the SQLite database in memory" if path is None else f"the SQLite file {Path(path).name}"
    reader = None if path is None else FileReader(path)
    bell = None if path is None else FileBell(path, asynchronous=asynchronous)
    database = SqliteDatabase(path, name=name, asynchronous=asynchronous)
    backend = sql_backend(database, actor=actor, clock=clock, reader=reader, naming=naming, bell=bell)
    return OpenedStore(backend=backend, path=None if path is None else Path(path), in_memory=path is None)


def open_postgresql(url: str, *, asynchronous: bool, actor: str, clock: Clock | None) -> OpenedStore:
    """Open a database on a PostgreSQL server."""
    address = Address.read(url, postgresql.EXAMPLE)
    link = postgresql.Link(address, asynchronous=asynchronous)
    engine = postgresql.open_engine(link, asynchronous=asynchronous)
    wire = postgresql.open_wire(link, asynchronous=asynchronous)
    name, replica, warnings = f"the PostgreSQL database {address.url.database}", None, link.warnings
    elsewhere = address.of_replica()
    if elsewhere is not None:
        other = postgresql.Link(elsewhere, asynchronous=asynchronous)
        replica = _replica(postgresql.open_engine(other, asynchronous=asynchronous), name, elsewhere)
        warnings = warnings or other.warnings
    backend = sql_backend(
        EngineDatabase(engine, name=name, limits=address.limits, replica=replica),
        actor=actor,
        clock=clock,
        reader=wire,
        link=warnings,
        naming=address.naming,
        bell=postgresql.open_bell(link, asynchronous=asynchronous),
    )
    return OpenedStore(backend=backend)


def open_mariadb(url: str, *, asynchronous: bool, actor: str, clock: Clock | None) -> OpenedStore:
    """Open a database on a MariaDB or MySQL server."""
    address = Address.read(url, mariadb.EXAMPLE)
    link = mariadb.Link(address, asynchronous=asynchronous)
    engine = mariadb.open_engine(link, asynchronous=asynchronous)
    name, replica, warnings = f"the MariaDB database {address.url.database}", None, link.warnings
    elsewhere = address.of_replica()
    if elsewhere is not None:
        other = mariadb.Link(elsewhere, asynchronous=asynchronous)
        replica = _replica(mariadb.open_engine(other, asynchronous=asynchronous), name, elsewhere)
        warnings = warnings or other.warnings
    database = EngineDatabase(engine, name=name, limits=address.limits, replica=replica)
    backend = sql_backend(database, actor=actor, clock=clock, link=warnings, naming=address.naming)
    return OpenedStore(backend=backend)


def _replica(engine: Engine | AsyncEngine, name: str, address: Address) -> Replica:
    return Replica(EngineDatabase(engine, name=f"the replica of {name}", limits=address.limits))


def open_lent(engine: object, *, asynchronous: bool, actor: str, clock: Clock | None) -> OpenedStore:
    """Use an engine that belongs to the caller: it is never closed here, and gets no listener and no setting.

    Raises:
        ConfigurationError: it is of the other face's kind, or its database is none that can be lent.
    """
    wanted = AsyncEngine if asynchronous else Engine
    if not isinstance(engine, wanted):
        face, other = ("async", "sync") if asynchronous else ("sync", "async")
        msg = (
            f"the {face} face takes a URL or a SQLAlchemy {wanted.__name__}, not {type(engine).__name__}; "
            f"hand that to the {other} face, or make the other kind"
        )
        raise ConfigurationError(msg)
    kind = _LENT.get(engine.dialect.name)
    if kind is None:
        msg = (
            f"an engine for {engine.dialect.name} cannot be lent; give the URL instead: SQLite's connections must be "
            "set up in a way of their own (sqlite:///file), other databases are not known"
        )
        raise ConfigurationError(msg)
    database = EngineDatabase(engine, name=f"the {kind} database {engine.url.database}", owned=False)
    return OpenedStore(backend=sql_backend(database, actor=actor, clock=clock))
