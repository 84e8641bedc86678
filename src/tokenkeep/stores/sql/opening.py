"""From a URL to a SQL backend."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from tokenkeep.errors import ConfigurationError
from tokenkeep.ports import Clock, OpenedStore
from tokenkeep.stores.sql import sqlite
from tokenkeep.stores.sql.backend import sql_backend
from tokenkeep.stores.sql.database import Database

_SQLITE_DRIVERS: Final = {False: ("", "pysqlite"), True: ("", "aiosqlite")}


def open_sqlite(url: str, *, asynchronous: bool, actor: str, clock: Clock | None) -> OpenedStore:
    """Open a SQLite file or memory."""
    parsed = _parsed(url)
    _, _, driver = parsed.drivername.partition("+")
    if driver not in _SQLITE_DRIVERS[asynchronous]:
        face = "async" if asynchronous else "sync"
        msg = f"the {face} face does not take the SQLite driver {driver!r}; leave it out of the URL"
        raise ConfigurationError(msg)
    if parsed.query:
        msg = f"a SQLite URL takes no options ({', '.join(sorted(parsed.query))}); write sqlite:///file"
        raise ConfigurationError(msg)
    path = None if parsed.database in {None, "", ":memory:"} else str(parsed.database)
    engine = sqlite.open_engine(path, asynchronous=asynchronous)
    name = "the SQLite database in memory" if path is None else f"the SQLite file {Path(path).name}"
    reader = None if path is None else sqlite.FileReader(path)
    backend = sql_backend(Database(engine, name=name), actor=actor, clock=clock, reader=reader)
    return OpenedStore(backend=backend, path=None if path is None else Path(path), in_memory=path is None)


def _parsed(url: str) -> URL:
    try:
        return make_url(url)
    except ArgumentError:
        msg = "the database URL cannot be read; write it as sqlite:///file"
        raise ConfigurationError(msg) from None
