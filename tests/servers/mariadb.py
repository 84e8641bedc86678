"""MariaDB."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pymysql

from servers.common import Database, Server, program

PASSWORD: Final = "mariadb-pw-canary"


class MariaDB(Server):
    """One server. It survives kill -9 with every acknowledged commit, not a power cut."""

    name = "mariadb"
    run_as = ("mysql",)

    user = "tokenkeep"
    password = PASSWORD

    def install(self) -> None:
        program("mariadbd")
        init = self.folder / "init.sql"
        init.write_text(
            f"CREATE USER IF NOT EXISTS '{self.user}'@'{self.host}' IDENTIFIED BY '{self.password}';\n"
            f"GRANT ALL ON *.* TO '{self.user}'@'{self.host}' WITH GRANT OPTION;\n"
        )
        init.chmod(0o644)  # the folder around it is private
        self.run(
            *(program("mariadb-install-db"), "--no-defaults", f"--datadir={self.folder}/data"),
            *("--auth-root-authentication-method=normal", "--skip-test-db"),
            self._own_temporary_files(),
        )

    def command(self) -> Sequence[str]:
        return [
            program("mariadbd"),
            "--no-defaults",
            f"--datadir={self.folder}/data",
            f"--bind-address={self.host}",
            f"--port={self.port}",
            f"--socket={self.folder}/socket",
            f"--pid-file={self.folder}/pid",
            f"--init-file={self.folder}/init.sql",
            self._own_temporary_files(),
            "--character-set-server=utf8mb4",
            "--innodb-buffer-pool-size=32M",
            "--innodb-log-file-size=16M",
            "--innodb-flush-log-at-trx-commit=2",  # written at each commit, so that kill -9 loses none
            "--skip-innodb-doublewrite",
            "--max-connections=300",
            "--performance-schema=OFF",
            "--skip-name-resolve",
            *self.options,
        ]

    def _own_temporary_files(self) -> str:
        """A server that starts removes whatever others have left in a folder that they share, or still use."""
        return f"--tmpdir={self.folder}"

    def ask(self) -> None:
        self.connect().close()

    def connect(self, database: str | None = None) -> pymysql.Connection[Any]:
        """Connect with every right, each statement its own transaction."""
        return pymysql.connect(
            host=self.host, port=self.port, user=self.user, password=self.password, database=database, autocommit=True
        )

    def url(self, database: str) -> str:
        """Return the URL of a database, for whatever driver."""
        return f"mariadb://{self.user}:{self.password}@{self.host}:{self.port}/{database}"

    def database(self) -> Database:
        name = self.fresh_name()
        self._do(f"CREATE DATABASE `{name}`")
        return Database(name, self.url(name))

    def drop(self, database: Database) -> None:
        self._do(f"DROP DATABASE IF EXISTS `{database.name}`")

    def _do(self, statement: str) -> None:
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(statement)
