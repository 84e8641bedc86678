"""How a connection to SQLite is set up."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from typing import Final

BUSY_SECONDS: Final = 5.0
"""How long a writer waits for another process to finish its transaction."""

_WRITES_IN_MEMORY: Final = "PRAGMA cache_size=-16384"
"""KiB of pages that the connection which writes may keep: a change that touches many finds them there."""


def connect(path: str | None, *, writes: bool = False) -> sqlite3.Connection:
    """Open a file, or with `None` a database in memory that lives as long as the connection.

    The driver opens no transactions of its own. `synchronous=FULL` syncs the log at every commit: what was
    acknowledged survives a power cut.
    """
    connection = sqlite3.connect(
        path or ":memory:", timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    try:
        _write_ahead(connection)
        connection.execute("PRAGMA synchronous=FULL")
        if writes:
            connection.execute(_WRITES_IN_MEMORY)
        connection.execute("PRAGMA secure_delete=FAST")  # what is erased is overwritten where it costs no more writes
    except BaseException:
        connection.close()
        raise
    return connection


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Let readers and the writer work side by side.

    The switch fails while another process makes it, and on a file that cannot be written; the one needs
    no second switch, and the other is told by the first statement that writes.
    """
    if connection.execute("PRAGMA journal_mode").fetchone()[0] == "delete":
        with suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA journal_mode=WAL")
