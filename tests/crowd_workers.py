"""A process that asks for Upstox tokens: `python crowd_workers.py JSON`.

Each line on its standard input is a user to ask for, with all its callers at once. It says `ready` when the vault is
open, `asking` when the callers are about to call, and `answered` with what they got. At the end of the input it leaves.

With a `fate` it comes to grief at one point of its first login: killed, or stopped until it is sent SIGCONT.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tokenkeep import AcquiredToken, AsyncTokenVault, KeyRing, NewToken, TokenVault
from tokenkeep.errors import TokenKeepError
from tokenkeep.providers.upstox import UpstoxCredentials, UpstoxProvider

type Outcome = AcquiredToken | TokenKeepError

_speaking = threading.Lock()


def say(**words: Any) -> None:
    with _speaking:
        sys.stdout.write(f"{json.dumps(words)}\n")
        sys.stdout.flush()


class Fate:
    """What happens to this process, and at which point.

    Args:
        point: `asked` or `granted` (before and after the provider), `returned` (the caller has the token), or SQL
            statements joined by `; `, by their beginnings: it happens before the last of them, once the others have
            begun in their order.
        how: the signal that the process sends itself.
    """

    def __init__(self, point: str = "", how: int = signal.SIGKILL) -> None:
        self._point = point
        self._how = how
        self.armed = False

    def comes(self, point: str) -> None:
        if self.armed and point == self._point:
            self.strikes()

    def strikes(self) -> None:
        self.armed = False
        os.kill(os.getpid(), self._how)
        time.sleep(1)  # with other threads about, the signal may take a moment

    def watch_sqlite(self) -> None:
        connect, expected = sqlite3.connect, self._point.split("; ")
        if " " not in self._point:  # it is no statement
            return

        def about_to_run(statement: str) -> None:
            if not self.armed or not statement.startswith(expected[0]):
                return
            if len(expected) == 1:
                self.strikes()
            else:
                del expected[0]

        def watched(*args: Any, **options: Any) -> sqlite3.Connection:
            connection: sqlite3.Connection = connect(*args, **options)
            connection.set_trace_callback(about_to_run)
            return connection

        sqlite3.connect = watched  # type: ignore[assignment]
        sqlite3.dbapi2.connect = watched  # type: ignore[assignment]


class Fateful(UpstoxProvider):
    def __init__(self, fate: Fate, accounts: dict[str, dict[str, str]], base_domain: str) -> None:
        credentials = {user: UpstoxCredentials(**account) for user, account in accounts.items()}
        super().__init__(credentials, base_domain=base_domain)
        self._fate = fate

    def acquire(self, user_id: str) -> Sequence[NewToken]:
        self._fate.comes("asked")
        granted = super().acquire(user_id)
        self._fate.comes("granted")
        return granted


def answered(user: str, outcomes: list[Outcome]) -> None:
    tokens = [outcome for outcome in outcomes if isinstance(outcome, AcquiredToken)]
    say(
        answered=user,
        count=len(tokens),
        tokens=sorted({(token.id, token.version, token.access_token.reveal()) for token in tokens}),
        errors=sorted({repr(outcome) for outcome in outcomes if not isinstance(outcome, AcquiredToken)}),
    )


def with_threads(vault: TokenVault, callers: int, fate: Fate) -> None:
    def call(user: str, together: threading.Barrier) -> Outcome:
        if together.wait() == 0:
            say(asking=user)
        try:
            return vault.get_or_create(user)
        except TokenKeepError as error:
            return error

    def ask(user: str) -> None:
        together = threading.Barrier(callers)
        with ThreadPoolExecutor(callers) as pool:
            outcomes = list(pool.map(lambda _: call(user, together), range(callers)))
        fate.comes("returned")
        answered(user, outcomes)

    asking = []
    for line in sys.stdin:
        asking.append(threading.Thread(target=ask, args=(line.strip(),)))
        asking[-1].start()
    for thread in asking:
        thread.join()


async def with_tasks(vault: AsyncTokenVault, callers: int, fate: Fate) -> None:
    async def call(user: str) -> Outcome:
        try:
            return await vault.get_or_create(user)
        except TokenKeepError as error:
            return error

    async def ask(user: str) -> None:
        say(asking=user)
        outcomes = await asyncio.gather(*(call(user) for _ in range(callers)))
        fate.comes("returned")
        answered(user, outcomes)

    async with asyncio.TaskGroup() as group:
        while line := await asyncio.to_thread(sys.stdin.readline):
            group.create_task(ask(line.strip()))


def main(  # a process is told everything at once
    *, face: str, url: str, keys: str, callers: int, base_domain: str, accounts: dict[str, Any], **fated: Any
) -> None:
    fate = Fate(**fated)
    fate.watch_sqlite()
    provider, ring = Fateful(fate, accounts, base_domain), KeyRing.from_file(keys)

    async def tasks() -> None:
        async with AsyncTokenVault.open(url, providers=[provider], keys=ring) as vault:
            fate.armed = True
            say(ready=True)
            await with_tasks(vault, callers, fate)

    if face == "tasks":
        asyncio.run(tasks())
        return
    with TokenVault.open(url, providers=[provider], keys=ring) as vault:
        fate.armed = True
        say(ready=True)
        with_threads(vault, callers, fate)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
