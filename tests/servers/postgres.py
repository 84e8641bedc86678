"""PostgreSQL."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any, Final

import psycopg

from servers.common import Database, Server, program

FOLDER: Final = "usr/lib/postgresql/*/bin"
PASSWORD: Final = "postgres-pw-canary"


class Postgres(Server):
    """One cluster. It survives kill -9 with every acknowledged commit, not a power cut: `fsync` is off."""

    name = "postgres"
    run_as = ("postgres",)
    ends_by = signal.SIGQUIT  # at once, and its children with it

    user = "tokenkeep"
    password = PASSWORD

    def install(self) -> None:
        initdb = program("initdb", FOLDER)
        secret = self.folder / "password"
        secret.write_text(self.password)
        secret.chmod(0o644)  # the folder around it is private
        self.run(
            *(initdb, "-D", "data", "-U", self.user, "-A", "scram-sha-256", "--pwfile", "password"),
            *("-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions"),
        )

    def command(self) -> Sequence[str]:
        settings = {
            "listen_addresses": self.host,
            "port": self.port,
            "unix_socket_directories": "",
            "fsync": "off",
            "full_page_writes": "off",
            "synchronous_commit": "on",  # off loses acknowledged commits at kill -9
            "max_connections": 300,
            "max_prepared_transactions": 20,
            "shared_buffers": "64MB",
            "wal_level": "logical",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [program("postgres", FOLDER), "-D", "data", *options, *self.options]

    def ask(self) -> None:
        with self.connect() as connection:
            connection.execute("SELECT 1")

    def connect(self, database: str = "postgres") -> psycopg.Connection[Any]:
        """Connect as the owner of everything, each statement its own transaction."""
        return psycopg.connect(
            host=self.host, port=self.port, user=self.user, password=self.password, dbname=database, autocommit=True
        )

    def url(self, database: str) -> str:
        """Return the URL of a database, for whatever driver."""
        return f"postgresql://{self.user}:{self.password}@{self.host}:{self.port}/{database}"

    def database(self) -> Database:
        name = self.fresh_name()
        with self.connect() as connection:
            connection.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name)))
        return Database(name, self.url(name))

    def drop(self, database: Database) -> None:
        name = psycopg.sql.Identifier(database.name)
        with self.connect() as connection:
            connection.execute(psycopg.sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
