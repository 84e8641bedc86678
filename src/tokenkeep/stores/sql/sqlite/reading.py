"""Reading SQLite on the driver itself: the row that a request asks for, and everything else."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, Final

from tokenkeep.stores.sql.database import Transaction
from tokenkeep.stores.sql.sqlite.connecting import BUSY_SECONDS
from tokenkeep.stores.sql.sqlite.writing import Job

NOTED: Final = 20_000
"""Rows that a thread notes between two commits."""

AT_ONCE: Final = 8
"""Transactions that read at the same moment; each has a connection, which is kept."""


class Readers:
    """Transactions that read, each on a connection that nobody else uses meanwhile. Safe to use from threads.

    Args:
        connect: opens a connection.
        wrap: makes a transaction of it.
    """

    def __init__(
        self, connect: Callable[[], sqlite3.Connection], wrap: Callable[[sqlite3.Connection], Transaction]
    ) -> None:
        self._connect = connect
        self._wrap = wrap
        self._idle: list[sqlite3.Connection] = []
        self.forget()

    def do(self, job: Job[Any]) -> None:
        """Do a job; its error is noted and not raised."""
        with self._places:
            try:
                connection = self._idle.pop() if self._idle else self._connect()
            except Exception as error:  # noqa: BLE001  # its caller raises it
                job.finish(error)
                return
            self._do(job, connection)

    def _do(self, job: Job[Any], connection: sqlite3.Connection) -> None:
        try:
            connection.execute("BEGIN")
            job.attempt(self._wrap(connection))
            connection.execute("COMMIT")
        except BaseException as error:
            connection.close()
            job.finish(error)
            if not isinstance(error, Exception):
                raise
        else:
            self._idle.append(connection)
            job.finish()

    def close(self) -> None:
        """Close the connections that nobody uses."""
        while self._idle:
            self._idle.pop().close()

    def forget(self) -> None:
        """Begin anew without closing anything: after a fork the connections are the parent's."""
        self._forgotten, self._idle = self._idle, []  # closing them would drop the parent's locks
        self._places = threading.BoundedSemaphore(AT_ONCE)


class Thread:
    """What one thread reads on: a connection, and what it found there since the last commit of anybody.

    Each look-up is a transaction of its own and sees every commit before it: either it selects the row, or it asks
    for `PRAGMA data_version`, which says that nobody has committed since the row was selected here.
    """

    __slots__ = ("_execute", "_found", "_version", "connection", "owner")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.owner = threading.current_thread()
        self.connection = connection
        self._execute = connection.cursor().execute  # one cursor: what it left unread it drops with the next statement
        self._version: int | None = None
        self._found: dict[Hashable, Any] = {}

    def found(self, key: Hashable) -> Any:
        """Return what was noted under a key, if nobody has committed since; otherwise `None`."""
        noted = self._found.get(key)
        if noted is None:
            return None
        version = self._look()
        if version == self._version:
            return noted
        self._version = version
        self._found = {}
        return None

    def note(self, key: Hashable, found: object) -> None:
        """Note what was made of a row that `first` has just returned, in the place of the row."""
        if self._version is None:  # the next row will be read after this
            self._version = self._look()
            return
        if len(self._found) >= NOTED:
            self._found = {}
        self._found[key] = found

    def first(self, sql: str, parameters: Sequence[Any]) -> Any:
        """Return the first row as a tuple, or `None`."""
        return self._execute(sql, parameters).fetchone()

    def _look(self) -> int:
        """Return a number that changes, for this connection, whenever another one has committed."""
        version: int = self._execute("PRAGMA data_version").fetchone()[0]
        return version


class FileReader:
    """Look up single rows on the driver itself, on a connection for each thread.

    A warm row by its key takes less time than the hop to a worker thread, so the async face reads here
    in its loop as well.
    """

    def __init__(self, path: str) -> None:
        self._uri = f"{Path(path).absolute().as_uri()}?mode=ro"
        self._local = threading.local()
        self._lock = threading.Lock()
        self._threads: list[Thread] = []

    def thread(self) -> Thread:
        """Return what the calling thread reads on."""
        try:
            thread: Thread = self._local.thread
        except AttributeError:
            thread = self._local.thread = self._open()
        return thread

    def _open(self) -> Thread:
        connection = sqlite3.connect(
            self._uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        thread = Thread(connection)
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
