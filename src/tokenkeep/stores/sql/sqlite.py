"""SQLite: how its connections are set up, and the one read that goes past SQLAlchemy."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, QueuePool

from tokenkeep.stores.sql.database import WRITES

BUSY_SECONDS: Final = 5.0
"""How long a writer waits for another process to finish its transaction."""


def open_engine(path: str | None, *, asynchronous: bool) -> Engine | AsyncEngine:
    """Open a file, or with `None` a database in memory that lives as long as the engine.

    A database in memory has one connection, which its users take in turn.
    """
    database = path or ":memory:"
    pool_size = 5 if path else 1
    options: dict[str, Any] = {
        "pool_size": pool_size,
        "max_overflow": 0,
        "pool_timeout": 30,
        "connect_args": {"timeout": BUSY_SECONDS, "check_same_thread": False},
    }
    engine: Engine | AsyncEngine
    if asynchronous:
        engine = create_async_engine(f"sqlite+aiosqlite:///{database}", poolclass=AsyncAdaptedQueuePool, **options)
        configure(engine.sync_engine)
    else:
        engine = create_engine(f"sqlite:///{database}", poolclass=QueuePool, **options)
        configure(engine)
    return engine


def configure(engine: Engine) -> None:
    """Make commits durable and let writers queue at BEGIN instead of failing in the middle.

    `synchronous=FULL` syncs the log at every commit: what was acknowledged survives a power cut.
    """

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver opens no transactions of its own
        cursor = connection.cursor()
        _write_ahead(cursor)
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA secure_delete=FAST")  # what is erased is overwritten where that costs no more writes
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        writes = connection.get_execution_options().get(WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _write_ahead(cursor: Any) -> None:
    """Let readers and the writer work side by side.

    The switch fails while another process makes it, and on a file that cannot be written; the one needs
    no second switch, and the other is told by the first statement that writes.
    """
    cursor.execute("PRAGMA journal_mode")
    if cursor.fetchone()[0] == "delete":
        with suppress(sqlite3.OperationalError):
            cursor.execute("PRAGMA journal_mode=WAL")


class FileReader:
    """Look up single rows on the driver itself, on a connection for each thread.

    A warm row by its key takes less time than the hop to a worker thread, so the async face reads here
    in its loop as well. Each look-up is a transaction of its own and sees every commit before it.
    """

    def __init__(self, path: str) -> None:
        self._uri = f"{Path(path).absolute().as_uri()}?mode=ro"
        self._local = threading.local()
        self._lock = threading.Lock()
        self._connections: list[tuple[threading.Thread, sqlite3.Connection]] = []

    def first(self, sql: str, parameters: Sequence[Any]) -> Any:
        """Return the first row as a tuple, or `None`."""
        try:
            connection = self._local.connection
        except AttributeError:
            connection = self._open()
        return connection.execute(sql, parameters).fetchone()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        with self._lock:
            self._reap()
            self._connections.append((threading.current_thread(), connection))
        self._local.connection = connection
        return connection

    def _reap(self) -> None:
        """Close the connections of threads that have ended."""
        for thread, connection in self._connections:
            if not thread.is_alive():
                connection.close()
        self._connections = [pair for pair in self._connections if pair[0].is_alive()]

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            for _thread, connection in self._connections:
                connection.close()
            self._connections = []
            self._local = threading.local()

    def forget(self) -> None:
        """Let go of the connections without closing them: they belong to the parent after a fork."""
        self._lock = threading.Lock()
        self._forgotten = self._connections  # closing an inherited connection would drop the parent's locks
        self._connections = []
        self._local = threading.local()
