"""A process that works while a server fails over: `python failover_worker.py JSON`.

It stores, reads, issues, verifies and revokes without a pause, and says `working` once it does. After the line
`failed` on its standard input it says `recovered` when it has worked again for a while. At the end of the input it
says what it was told had happened, and leaves.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
import time
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any

from tokenkeep import KeyRing, NewToken
from tokenkeep.errors import StoreError
from tokenkeep.testing import faces

A_WHILE = 12
"""Turns after which a process is said to work."""


def say(**words: Any) -> None:
    sys.stdout.write(f"{json.dumps(words)}\n")
    sys.stdout.flush()


class Work:
    """What one process does over and over, and what it was told of it."""

    def __init__(self, number: int, vault: Any, issuer: Any) -> None:
        self.number, self.vault, self.issuer = number, vault, issuer
        self.stored: dict[str, str] = {}
        self.revoked: list[str] = []
        self.alive: list[str] = []
        self.wrong: list[str] = []
        self.errors: list[str] = []
        self.longest = 0.0

    async def timed[T](self, call: Awaitable[T]) -> T:
        began = time.monotonic()
        try:
            return await call
        finally:
            self.longest = max(self.longest, time.monotonic() - began)

    async def turn(self, count: int) -> bool:
        """Do everything once; `False` when the store was not available."""
        user = f"user {self.number}-{count % 5}"
        try:
            await self.store(user, f"token {self.number}-{count}")
            await self.issue(user, count)
        except StoreError as error:
            self.errors.append(str(error))
            return False
        return True

    async def store(self, user: str, text: str) -> None:
        self.stored.pop(user, None)  # until it is acknowledged it may have happened or not
        token = await self.timed(self.vault.store(user, NewToken(text), provider="p"))
        if token.persisted:
            self.stored[user] = text
        read = await self.timed(self.vault.get_valid(user, provider="p"))
        if read is None or read.version < token.version:
            self.wrong.append(f"{text} was not read back")

    async def issue(self, user: str, count: int) -> None:
        issued = await self.timed(self.issuer.issue(user))
        if await self.timed(self.issuer.verify(issued.token)) is None:
            self.wrong.append("a new token was nobody")
        if count % 2 == 0:
            self.alive.append(issued.token.reveal())
        elif await self.timed(self.issuer.revoke(issued)):
            self.revoked.append(issued.token.reveal())
            if await self.timed(self.issuer.verify(issued.token)) is not None:
                self.wrong.append("a revoked token was good")

    def told(self) -> dict[str, Any]:
        names = ("stored", "revoked", "alive", "wrong", "errors", "longest")
        return {name: getattr(self, name) for name in names}


async def main(url: str, keys: str, face: faces.Face, number: int) -> None:
    failed, over = threading.Event(), threading.Event()

    def listen() -> None:
        for _ in sys.stdin:
            failed.set()
        over.set()

    ring = KeyRing.from_file(keys)
    async with (
        faces.open_vault(face, url, keys=ring) as vault,
        faces.open_issuer(face, url, lifetime=timedelta(hours=1), keys=ring) as issuer,
    ):
        work = Work(number, vault, issuer)
        threading.Thread(target=listen, daemon=True).start()
        count = good = since = 0
        while not over.is_set():
            went_well = await work.turn(count)
            count, good = count + 1, good + went_well
            since += went_well and failed.is_set()
            if good == A_WHILE and went_well:
                say(working=True)
            if since == A_WHILE and went_well:
                say(recovered=True)
        say(told=work.told())


if __name__ == "__main__":
    logging.getLogger("tokenkeep").addHandler(logging.NullHandler())  # what it has to say of fsync is known
    logging.getLogger("psycopg").addHandler(logging.NullHandler())  # nor is it news that a connection was lost
    asyncio.run(main(**json.loads(sys.argv[1])))
