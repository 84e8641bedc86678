"""SQLite counts the commits on a file: whoever looks often hears of each one soon."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Collection
from pathlib import Path
from typing import Final

from tokenkeep.model import Account

TICK: Final = 0.05
"""Seconds between two looks, each of which takes some microseconds."""


class FileBell:
    """Implements `Bell`. It tells of every commit in the file, whoever made it and whatever it changed."""

    def __init__(self, path: str, *, asynchronous: bool) -> None:
        self._uri = f"{Path(path).absolute().as_uri()}?mode=ro"
        self._asynchronous = asynchronous

    def topic(self, account: Account, kind: str) -> str:  # noqa: ARG002  # it does not know what was changed
        return ""

    async def listen(self) -> FileEar:
        connection = sqlite3.connect(self._uri, uri=True, isolation_level=None)
        return FileEar(connection, asynchronous=self._asynchronous)


class FileEar:
    """Implements `Ear` on a connection of its own: `PRAGMA data_version` counts the commits of all others."""

    def __init__(self, connection: sqlite3.Connection, *, asynchronous: bool) -> None:
        self._connection = connection
        self._asynchronous = asynchronous
        self._version = self._look()

    def _look(self) -> int:
        [version] = self._connection.execute("PRAGMA data_version").fetchone()
        return int(version)

    async def heard(self, seconds: float) -> Collection[str] | None:
        until = time.monotonic() + seconds
        while (version := self._look()) == self._version:
            if time.monotonic() > until:
                return ()
            if self._asynchronous:
                await asyncio.sleep(TICK)
            else:
                time.sleep(TICK)  # noqa: ASYNC251  # the listener of the sync face has a thread of its own
        self._version = version
        return None

    async def close(self) -> None:
        self._connection.close()
