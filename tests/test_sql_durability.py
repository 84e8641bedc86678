"""What was acknowledged is not undone, and what would undo it is said."""

from __future__ import annotations

import logging
import threading
import time
from datetime import timedelta

import pytest

from servers.mariadb import MariaDB
from servers.postgres import Postgres
from tokenkeep import IssuedToken, KeyRing, NewToken, TokenIssuer, TokenVault
from tokenkeep.errors import StoreError
from tokenkeep.testing import FakeProvider

HOUR = timedelta(hours=1)
WANTED, ROUNDS = 1000, 2


@pytest.mark.requirement("D10")
@pytest.mark.parametrize("setting", ["synchronous_commit=off", "fsync=off"])
def test_a_setting_of_postgresql_that_loses_data_is_said(setting: str, caplog: pytest.LogCaptureFixture) -> None:
    with Postgres.running("-c", "fsync=on", "-c", "full_page_writes=on", "-c", setting) as server:
        database = server.database()
        with (
            caplog.at_level(logging.WARNING, "tokenkeep"),
            TokenVault.open(database.url, keys=KeyRing.generate()) as vault,
        ):
            warnings = [warning for warning in vault.status().warnings if setting in warning]
            assert len(warnings) == 1
        assert [record.levelname for record in caplog.records if setting in record.getMessage()] == ["WARNING"]


@pytest.mark.requirement("D10")
@pytest.mark.parametrize(("setting", "said"), [("0", "is killed"), ("2", "power fails"), ("1", "")])
def test_a_setting_of_mariadb_that_loses_data_is_said(setting: str, said: str) -> None:
    with MariaDB.running(f"--innodb-flush-log-at-trx-commit={setting}") as server:
        database = server.database()
        with TokenIssuer.open(database.url, lifetime=HOUR) as issuer:
            warnings = [text for text in issuer.status().warnings if "innodb_flush_log_at_trx_commit" in text]
            assert len(warnings) == bool(said)
            assert all(said in text for text in warnings)


def test_a_server_that_loses_nothing_is_not_complained_of() -> None:
    with Postgres.running("-c", "fsync=on", "-c", "full_page_writes=on") as server:
        database = server.database()
        with TokenVault.open(database.url, keys=KeyRing.generate()) as vault:
            assert vault.status().warnings == ()


class Writer(threading.Thread):
    """Stores tokens of one user after another, issues and revokes others, and notes what was acknowledged."""

    def __init__(self, number: int, vault: TokenVault, issuer: TokenIssuer, stop: threading.Event) -> None:
        super().__init__()
        self.number, self.vault, self.issuer, self.stop = number, vault, issuer, stop
        self.stored: dict[str, str] = {}
        self.revoked: list[IssuedToken] = []

    @property
    def acknowledged(self) -> int:
        return len(self.stored) + len(self.revoked)

    def run(self) -> None:
        turn = 0
        while not self.stop.is_set():
            turn += 1
            try:
                user = f"user {self.number}-{turn % 40}"
                token = self.vault.store(user, NewToken(f"token {turn}"))
                if token.persisted:
                    self.stored[user] = token.access_token.reveal()
                issued = self.issuer.issue(user)
                if self.issuer.revoke(issued):
                    self.revoked.append(issued)
            except StoreError:
                self.stored.pop(user, None)  # it may have happened or not
                time.sleep(0.01)


@pytest.mark.requirement("K4")
def test_what_was_acknowledged_outlives_a_postgresql_that_is_killed() -> None:
    keys = KeyRing.generate()
    with Postgres.running() as server:
        database = server.database()
        acknowledged = 0
        for _ in range(ROUNDS):
            stop = threading.Event()
            with (
                TokenVault.open(database.url, keys=keys, providers=[FakeProvider()]) as vault,
                TokenIssuer.open(database.url, lifetime=HOUR, keys=keys) as issuer,
            ):
                writers = [Writer(number, vault, issuer, stop) for number in range(6)]
                for writer in writers:
                    writer.start()
                deadline = time.monotonic() + 30
                while sum(len(writer.revoked) for writer in writers) < WANTED / ROUNDS and time.monotonic() < deadline:
                    time.sleep(0.005)
                server.kill()
                stop.set()
                for writer in writers:
                    writer.join()
                server.restart()
                acknowledged += sum(writer.acknowledged for writer in writers)
                undone = [
                    issued.id
                    for writer in writers
                    for issued in writer.revoked
                    if issued.token is not None and issuer.verify(issued.token) is not None
                ]
                lost = [
                    user
                    for writer in writers
                    for user, token in writer.stored.items()
                    if (read := vault.get_valid(user)) is None or read.access_token.reveal() != token
                ]
            assert undone == []
            assert lost == []
        assert acknowledged >= WANTED
