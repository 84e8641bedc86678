"""A primary of PostgreSQL and a standby that follows it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from psycopg.conninfo import make_conninfo

from servers.common import PATIENCE, program
from servers.postgres import FOLDER, Postgres

OPTIONS = ("-c", "log_statement=all", "-c", "log_line_prefix=", "-c", "synchronous_commit=remote_apply")
"""Every statement stands in the server's log; a commit waits for those standbys that `wait_for_the_standby` names."""


class Standby(Postgres):
    """Follows a primary by streaming replication, and answers reads."""

    name = "postgres-standby"

    def __init__(self, primary: Postgres, *options: str) -> None:
        super().__init__(*options)
        self._primary = primary
        self._receiver = 0

    def install(self) -> None:
        of_primary = make_conninfo(
            host=self._primary.host, port=self._primary.port, user=self.user, password=self.password
        )
        self.run(
            *(program("pg_basebackup", FOLDER), "-d", of_primary, "-D", "data", "-X", "stream"),
            *("-R", "-C", "-S", "standby", "--checkpoint=fast", "--no-sync"),
        )

    def promote(self) -> None:
        """Make it a primary; it has become one when this returns."""
        if self._receiver:
            os.kill(self._receiver, signal.SIGCONT)
        with self.connect() as connection:
            assert connection.execute("SELECT pg_promote(true, 60)").fetchone() == (True,)

    def pause_replay(self) -> None:
        """Let it know of nothing new, as when it lags behind."""
        with self.connect() as connection:
            connection.execute("SELECT pg_wal_replay_pause()")
        self._until("SELECT pg_get_wal_replay_pause_state() = 'paused'", "pausing")

    def receive_nothing(self) -> None:
        """Let what the primary sends lie where it is, until `promote`."""
        with self.connect() as connection:
            [self._receiver] = connection.execute("SELECT pid FROM pg_stat_wal_receiver").fetchone() or (0,)
        os.kill(self._receiver, signal.SIGSTOP)

    def catch_up(self) -> None:
        """Wait until it knows what the primary knows now."""
        with self._primary.connect() as connection:
            [position] = connection.execute("SELECT pg_current_wal_lsn()::text").fetchone() or ("",)
        self._until(f"SELECT pg_last_wal_replay_lsn() >= '{position}'", "catching up")

    def _until(self, statement: str, what: str) -> None:
        end = time.monotonic() + PATIENCE
        with self.connect() as connection:
            while connection.execute(statement.encode()).fetchone() != (True,):
                assert time.monotonic() < end, f"the standby is not done with {what}"
                time.sleep(0.01)


class Pair(NamedTuple):
    """Both servers."""

    primary: Postgres
    standby: Standby

    def url(self, database: str) -> str:
        """Return the URL that names both, the primary first."""
        alone = self.primary.url(database)
        place = f"{self.primary.host}:{self.primary.port}"
        return alone.replace(place, f"{place},{self.standby.host}:{self.standby.port}")

    def wait_until_commits_hang(self, count: int) -> None:
        """Wait until so many commits are not acknowledged, because the standby says nothing."""
        end = time.monotonic() + PATIENCE
        with self.primary.connect() as connection:
            while True:
                [found] = connection.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
                ).fetchone() or (0,)
                if found >= count:
                    return
                assert time.monotonic() < end, "commits are acknowledged that the standby does not have"
                time.sleep(0.01)

    def wait_for_the_standby(self) -> None:
        """From now on a commit is acknowledged once the standby shows it (synchronous replication)."""
        with self.primary.connect() as connection:
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            connection.execute("SELECT pg_reload_conf()")
        end = time.monotonic() + PATIENCE
        with self.primary.connect() as connection:
            while connection.execute("SELECT sync_state FROM pg_stat_replication").fetchone() != ("sync",):
                assert time.monotonic() < end, "the standby does not follow synchronously"
                time.sleep(0.01)


@contextmanager
def replicated() -> Iterator[Pair]:
    """Run a primary and a standby for the length of a block."""
    with Postgres.running(*OPTIONS) as primary:
        standby = Standby(primary, *OPTIONS)
        standby.start()
        try:
            yield Pair(primary, standby)
        finally:
            standby.stop()
