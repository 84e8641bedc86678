"""A process that forks children who are killed while they write: `python crowd_forks.py JSON`.

Each line on its standard input is an order, a JSON object; when the child of an order is gone it says `died`. A child
opens the vault anew, prepares its work, and is killed before the `at`th statement of it, or by the test at any time.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from tokenkeep import KeyRing, NewToken, TokenIssuer, TokenVault, upkeep
from tokenkeep.testing import FakeClock, FakeProvider

NEVER = -1
ENDLESS = 20.0
"""Seconds after which even a child that nobody kills has enough."""

upkeep._BATCH = 2  # type: ignore[misc]  # so that five tokens make three batches


def say(**words: Any) -> None:
    os.write(1, f"{json.dumps(words)}\n".encode())  # one write, so that a kill leaves no half line


class Countdown:
    """Kills this process before a statement of SQLite, whatever library runs it."""

    def __init__(self) -> None:
        self._left = NEVER
        connect = sqlite3.connect

        def watched(*args: Any, **options: Any) -> sqlite3.Connection:
            connection: sqlite3.Connection = connect(*args, **options)
            connection.set_trace_callback(self._passed)
            return connection

        sqlite3.connect = watched  # type: ignore[assignment]
        sqlite3.dbapi2.connect = watched  # type: ignore[assignment]

    def start(self, at: int) -> None:
        self._left = at

    def _passed(self, statement: str) -> None:
        self._left = max(NEVER, self._left - 1)
        if self._left == 0:
            say(before=statement[:60])
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(1)  # with other threads about, the signal may take a moment


def one_change(work: str, vault: TokenVault, clock: FakeClock, user: str) -> Callable[[], object]:
    """Put a token in place, and return the change that is to be interrupted."""
    old = vault.store(user, NewToken("old", expires_in=3600, metadata={"made": "before"}))
    if work == "uses":
        vault.get_valid(user)
    if work == "purge":
        clock.advance(timedelta(hours=2))
    changes: dict[str, Callable[[], object]] = {
        "store": lambda: vault.store(user, NewToken("new", expires_in=3600, metadata={"made": "after"})),
        "acquire": lambda: vault.acquire(user),
        "reject": lambda: vault.reject(old),
        "revoke": lambda: vault.revoke(user),
        "uses": vault.close,
        "purge": vault.purge,
    }
    return changes[work]


def change_and_tell(vault: TokenVault, issuer: TokenIssuer, number: int) -> None:
    """Store, revoke and issue again and again, and acknowledge each change."""
    end = time.monotonic() + ENDLESS
    while time.monotonic() < end:
        for _ in range(2):
            token = vault.store("alice", NewToken(os.urandom(8).hex()))
            say(acknowledged=[number, token.version, token.access_token.reveal()])
            say(writing=number, pid=os.getpid())
        vault.revoke("alice")
        say(acknowledged=[number, token.version, None])
        kept, ended = (issuer.issue("alice").token for _ in range(2))
        assert kept is not None
        assert ended is not None
        say(issued=kept.reveal())
        issuer.revoke(ended.reveal())
        say(revoked=ended.reveal())


def child(order: dict[str, Any], keys: str) -> None:
    countdown, clock = Countdown(), FakeClock()
    clock.advance(timedelta(seconds=order.get("later", 0)))
    ring, url, work = KeyRing.from_file(keys), order["url"], order["work"]
    with TokenVault.open(url, providers=[FakeProvider()], keys=ring, clock=clock) as vault:
        if work == "change_and_tell":
            with TokenIssuer.open(url, lifetime=timedelta(hours=1), keys=ring, clock=clock) as issuer:
                change_and_tell(vault, issuer, order["number"])
            return
        change = vault.rotate_keys if work == "rotate" else one_change(work, vault, clock, order["user"])
        countdown.start(order["at"])
        change()
        countdown.start(NEVER)


def warm_up(keys: str) -> None:
    """Load what a vault needs before the first fork, so that no child has to."""
    with TokenVault.open("sqlite://", providers=[FakeProvider()], keys=KeyRing.from_file(keys)) as vault:
        vault.store("nobody", NewToken("none"))
    with TokenIssuer.open("sqlite://", lifetime=timedelta(hours=1), keys=KeyRing.from_file(keys)) as issuer:
        issuer.issue("nobody")


def main(keys: str) -> None:
    warm_up(keys)
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            try:
                child(order, keys)
            except BaseException as error:
                say(failed=repr(error))
                raise
            finally:
                os._exit(0)
        _, status = os.waitpid(pid, 0)
        say(done=order["number"], died=os.WIFSIGNALED(status))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
