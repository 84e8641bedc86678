"""PgBouncer, which lends its connections to a PostgreSQL for the length of a transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg

from servers.common import Database, Server, program
from servers.postgres import Postgres


class PgBouncer(Server):
    """One in front of a server, in transaction mode, with as few connections as show that they change hands.

    Args:
        behind: the server that it pools for.
    """

    name = "pgbouncer"
    run_as = ("postgres",)

    def __init__(self, behind: Postgres, *options: str) -> None:
        super().__init__(*options)
        self.behind = behind

    def install(self) -> None:
        program("pgbouncer")
        users = self.folder / "users"
        users.write_text(f'"{self.behind.user}" "{self.behind.password}"\n')
        users.chmod(0o644)  # the folder around it is private

    def command(self) -> Sequence[str]:
        settings = {
            "listen_addr": self.host,
            "listen_port": self.port,
            "unix_socket_dir": "",
            "pool_mode": "transaction",
            "default_pool_size": 3,
            "auth_type": "scram-sha-256",
            "auth_file": self.folder / "users",
        }
        lines = [
            *("[databases]", f"* = host={self.behind.host} port={self.behind.port}"),
            *("[pgbouncer]", *(f"{name} = {value}" for name, value in settings.items())),
        ]
        configuration = self.folder / "pgbouncer.ini"
        configuration.write_text("\n".join(lines))
        configuration.chmod(0o644)
        return [program("pgbouncer"), str(configuration), *self.options]

    def ask(self) -> None:
        with self.connect() as connection:
            connection.execute("SELECT 1")

    def connect(self, database: str = "postgres") -> psycopg.Connection[Any]:
        """Connect through it, each statement its own transaction."""
        return psycopg.connect(
            host=self.host,
            port=self.port,
            user=self.behind.user,
            password=self.behind.password,
            dbname=database,
            autocommit=True,
            prepare_threshold=None,
        )

    def url(self, database: str) -> str:
        """Return the URL of a database through it."""
        return self.behind.url(database).replace(f":{self.behind.port}/", f":{self.port}/")

    def database(self) -> Database:
        made = self.behind.database()
        return made._replace(url=self.url(made.name))

    def drop(self, database: Database) -> None:
        self.behind.drop(database)
