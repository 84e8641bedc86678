"""The MongoDB protocol, spoken by SecantusDB: a process of its own, and no `mongod` (docs/backends.md)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pymongo import MongoClient

from servers.common import Database, Server, program


class Mongo(Server):
    """A replica set of one.

    Add `--sync-on-commit` when every acknowledged write must survive kill -9; it is slower.

    Args:
        options: more options for the server's command line.
        client_options: what our own client needs, for TLS say.
    """

    name = "mongo"

    def __init__(self, *options: str, **client_options: Any) -> None:
        super().__init__(*options)
        self.client_options = client_options

    def install(self) -> None:
        self._program()

    def _program(self) -> str:
        return program("secantusd-py", str(Path(sys.executable).parent.relative_to("/")))

    def command(self) -> Sequence[str]:
        return [
            *(self._program(), "--host", self.host, "--port", str(self.port), "--storage-path", f"{self.folder}/data"),
            *("--cache-size", "128M", "--enable-test-commands", "--log-level", "WARNING", *self.options),
        ]

    def ask(self) -> None:
        with self.connect() as client:
            client.admin.command("ping")

    def connect(self, **options: Any) -> MongoClient[dict[str, Any]]:
        """Return a client; it is up to the caller to close it."""
        given = {"serverSelectionTimeoutMS": 2000, "heartbeatFrequencyMS": 500, **self.client_options, **options}
        return MongoClient(self.host, self.port, **given)

    def url(self, database: str) -> str:
        """Return the URL of a database."""
        return f"mongodb://{self.host}:{self.port}/{database}?heartbeatFrequencyMS=500"

    def database(self) -> Database:
        name = self.fresh_name()
        return Database(name, self.url(name))

    def drop(self, database: Database) -> None:
        with self.connect() as client:
            client.drop_database(database.name)
