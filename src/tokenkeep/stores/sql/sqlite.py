"""SQLite: how its connections are set up, and the one read that goes past SQLAlchemy."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Hashable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, QueuePool

from tokenkeep.stores.sql.database import WRITES

BUSY_SECONDS: Final = 5.0
"""How long a writer waits for another process to finish its transaction."""

NOTED: Final = 10_000
"""Rows that a thread notes between two commits."""


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


class Thread:
    """What one thread reads on: a connection, and what it found there since the last commit of anybody."""

    __slots__ = ("connection", "found", "owner", "version")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.owner = threading.current_thread()
        self.connection = connection
        self.version = _version(connection)
        self.found: dict[Hashable, Any] = {}


class FileReader:
    """Look up single rows on the driver itself, on a connection for each thread.

    A warm row by its key takes less time than the hop to a worker thread, so the async face reads here
    in its loop as well. Each look-up is a transaction of its own and sees every commit before it: either it
    selects the row, or it asks for `PRAGMA data_version`, which says that nobody has committed since the row
    was selected here.
    """

    def __init__(self, path: str) -> None:
        self._uri = f"{Path(path).absolute().as_uri()}?mode=ro"
        self._local = threading.local()
        self._lock = threading.Lock()
        self._threads: list[Thread] = []

    def found(self, key: Hashable) -> Any:
        """Return what this thread noted under a key, if nobody has committed since; otherwise `None`."""
        thread = self._thread()
        noted = thread.found.get(key)
        if noted is None:
            return None
        version = _version(thread.connection)
        if version == thread.version:
            return noted
        thread.version = version
        thread.found = {}
        return None

    def note(self, key: Hashable, found: object) -> None:
        """Note what was made of a row that `first` has just returned, in the place of the row."""
        thread = self._thread()
        if len(thread.found) >= NOTED:
            thread.found = {}
        thread.found[key] = found

    def first(self, sql: str, parameters: Sequence[Any]) -> Any:
        """Return the first row as a tuple, or `None`."""
        return self._thread().connection.execute(sql, parameters).fetchone()

    def _thread(self) -> Thread:
        try:
            thread: Thread = self._local.thread
        except AttributeError:
            thread = self._local.thread = self._open()
        return thread

    def _open(self) -> Thread:
        connection = sqlite3.connect(
            self._uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            thread = Thread(connection)
        except BaseException:
            connection.close()
            raise
        with self._lock:
            self._reap()
            self._threads.append(thread)
        return thread

    def _reap(self) -> None:
        """Close the connections of threads that have ended."""
        for thread in self._threads:
            if not thread.owner.is_alive():
                thread.connection.close()
        self._threads = [thread for thread in self._threads if thread.owner.is_alive()]

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            for thread in self._threads:
                thread.connection.close()
            self._threads = []
            self._local = threading.local()

    def forget(self) -> None:
        """Let go of the connections without closing them: they belong to the parent after a fork."""
        self._lock = threading.Lock()
        self._forgotten = self._threads  # closing an inherited connection would drop the parent's locks
        self._threads = []
        self._local = threading.local()


def _version(connection: sqlite3.Connection) -> int:
    """A number that changes, for this connection, whenever another one has committed."""
    version: int = connection.execute("PRAGMA data_version").fetchone()[0]
    return version
